"""Sphinx: MyST pages, executed examples, reference from docstrings."""

from __future__ import annotations

import os

# The examples are pictures in files: no window, whatever the machine has.
os.environ["MPLBACKEND"] = "agg"

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
exclude_patterns = ["_build", "examples", "**/README.md"]
html_theme = "furo"
html_title = "gabactl"
myst_enable_extensions = ["dollarmath", "deflist", "colon_fence"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_",
    "abort_on_example_error": True,
    "show_memory": False,
    "min_reported_time": 5,
    "download_all_examples": False,
}
