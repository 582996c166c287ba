"""Sphinx: MyST pages, executed examples, reference from docstrings."""

from __future__ import annotations

import os
import types
import typing

# The examples are pictures in files: no window, whatever the machine has.
os.environ["MPLBACKEND"] = "agg"

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import gabactl

project = "gabactl"
author = "The gabactl developers"
copyright = "2026, the gabactl developers"
version = release = gabactl.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "examples", "theory", "**/README.md"]
html_theme = "furo"
html_title = "gabactl"
html_math_renderer = "mathml"
# Said of the whole path, which is the reader's; the examples' own names have no blanks.
suppress_warnings = ["sphinx_gallery.space_in_filename"]
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

templates_path = ["_templates"]
autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": ["examples", "theory"],
    "gallery_dirs": ["auto_examples", "auto_theory"],
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 5,
    "download_all_examples": False,
    "within_subsection_order": "FileNameSortKey",
    "write_computation_times": False,  # its pages load scripts from elsewhere
}


def _skip_aliases(app, what, name, obj, skip, options):
    """Type aliases have nothing to say that their users' signatures do not."""
    alias = isinstance(obj, (types.GenericAlias, types.UnionType)) or typing.get_origin(obj)
    return True if alias else None


def _escape_bars(app, what, name, obj, options, lines):
    """Docstrings write |x| for a magnitude, which reST would read as a substitution."""
    lines[:] = [
        line if "``" in line or ">>>" in line or ".. " in line else line.replace("|", "\\|")
        for line in lines
    ]


def _resolve_at_the_door(app, env, node, contnode):
    """A docstring names a function by its module; the page has it where people import it from."""
    module, _, name = str(node.get("reftarget", "")).rpartition(".")
    if module.startswith("gabactl.") and name in gabactl.__all__:
        domain = env.get_domain("py")
        kind, target = node["reftype"], f"gabactl.{name}"
        return domain.resolve_xref(env, node["refdoc"], app.builder, kind, target, node, contnode)
    return None


def _write_math(self, node, as_block):
    """Formulas as MathML, which browsers set without a script, a font or a network."""
    formula = tex2mathml(node.astext(), as_block=as_block)
    self.body.append(f'<div class="math">{formula}</div>' if as_block else formula)
    raise nodes.SkipNode


def setup(app):
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: _write_math(self, node, False), None),
        block_renderers=(lambda self, node: _write_math(self, node, True), None),
    )
    app.connect("autodoc-skip-member", _skip_aliases)
    app.connect("missing-reference", _resolve_at_the_door)
    app.connect("autodoc-process-docstring", _escape_bars, priority=900)
