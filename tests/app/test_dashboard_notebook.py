"""The dashboard and the results as a notebook shows them."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pytest

pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")

from gabactl.app import dashboard
from gabactl.base.results import Result
from gabactl.law.spec import GabaSpec
from gabactl.runs.saturation import saturation
from gabactl.traces import load_bundled

CELLS = (
    "from gabactl.app import dashboard\npage = dashboard('fd001-equal')\npage",
    "page.request(tab='diagram', ratio=500.0)\npage.session.stages().weights[0]",
    "from gabactl import GabaSpec\n"
    "from gabactl.runs.saturation import saturation\n"
    "from gabactl.traces import load_bundled\n"
    "saturation(load_bundled('fd001-gaba'), GabaSpec())",
)


def test_the_dashboard_shows_itself_without_a_page_of_its_own() -> None:
    import panel as pn

    pn.extension("filedropper")
    bundle, _ = dashboard("fd001-equal")._repr_mimebundle_()
    assert "Live loop" in bundle["text/html"]
    assert "application/vnd.holoviews_exec.v0+json" in bundle


def test_a_result_shows_itself_as_a_table() -> None:
    found = saturation(load_bundled("fd001-gaba"), GabaSpec())
    html = found._repr_html_()
    cells: list[str] = []
    parser = HTMLParser()
    parser.handle_data = cells.append  # type: ignore[method-assign]
    parser.feed(html)
    assert cells[0] == found.title
    assert [text for row in found.rows() for text in row] == cells[1:]


def test_what_a_file_says_is_no_markup_in_a_notebook() -> None:
    class Named(Result):
        title = "<script>"

        def facts(self) -> dict[str, Any]:
            return {}

        def rows(self) -> list[tuple[str, str]]:
            return [("<img>", "a & <b>")]

    class Spoken(Named):
        def __str__(self) -> str:
            return "<i>"

    assert "&lt;script&gt;" in Named()._repr_html_()
    assert "a &amp; &lt;b&gt;" in Named()._repr_html_()
    assert Spoken()._repr_html_() == "<pre>&lt;i&gt;</pre>"


@pytest.mark.slow
def test_a_notebook_runs_and_shows_them() -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    page, number, table = (cell.outputs for cell in notebook.cells)
    assert not [out for out in page if out.output_type == "stream"], page
    (shown,) = [out.data for out in page if out.output_type == "execute_result"]
    assert "Live loop" in shown["text/html"]
    assert json.loads(json.dumps(shown)) == shown
    weight = float(number[-1].data["text/plain"].split("(")[-1].rstrip(")"))
    # m/(m + R/(1 + R)), settled at R = 500 behind a floor of 0.05.
    assert weight == pytest.approx(0.05 / (0.05 + 500.0 / 501.0), rel=1e-12)
    assert table[-1].data["text/html"].startswith("<table>")
