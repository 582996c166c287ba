"""``gabactl dashboard`` on the command line, without serving."""

from __future__ import annotations

import sys

import pytest

from gabactl.cli import main


def test_without_panel_one_line_names_the_extra(monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith("gabactl.app")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "panel", None)
    assert main(["dashboard", "--no-browser"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'gabactl[app]'" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.parquet"], "check the path"),
        (["--beta", "0.99999"], "beta = 0.99999 is not a number from 0 to 0.9999"),
        (["--port", "70000"], "not in 0..65535"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, says, capsys):
    pytest.importorskip("panel", reason="panel is not installed: pip install 'gabactl[app]'")
    assert main(["dashboard", "--no-browser", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert says in error
