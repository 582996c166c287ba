"""``gabactl fuzz``."""

from __future__ import annotations

import importlib.util
import json
import sys

import pytest

from gabactl.cli import main

FAST = ["--warmup", "0", "--beta", "0.5", "--steps", "5000", "--no-corpus"]


def test_the_published_bound_is_a_finding(capsys):
    assert main(["fuzz", "--bound", "published", *FAST]) == 1
    out = capsys.readouterr().out
    assert "bounds of gaba: violated" in out
    assert "[[0.0, 1.0]] * 4" in out
    assert "def test_bounds_of_gaba" in out


def test_the_tight_bound_is_none(capsys):
    assert main(["fuzz", *FAST]) == 0
    assert "bounds of gaba: held" in capsys.readouterr().out


def test_json_is_strict_and_complete(capsys):
    assert main(["fuzz", "gradnorm", "--property", "finite", "--json", *FAST]) == 1
    text = capsys.readouterr().out
    report = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    (result,) = report["results"]
    assert report["violated"] is True
    assert result["property"] == "finite"
    assert result["seed"] == 0
    assert result["witness"]["segments"]


def test_all_properties_and_settings_from_a_file(capsys, tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text("[gaba]\nn_tasks = 3\nbeta = 0.5\nwarmup = 1\n")
    arguments = ["fuzz", "--property", "all", "--spec", str(file), "--steps", "600", "--json"]
    assert main([*arguments, "--no-corpus"]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert len(results) == 7
    assert {r["n_tasks"] for r in results} == {3}


def test_the_corpus_is_kept_where_it_is_asked_for(capsys, tmp_path):
    arguments = ["fuzz", "--bound", "published", *FAST[:-1], "--corpus", str(tmp_path / "c")]
    assert main(arguments) == 1
    assert main(arguments) == 1
    assert "the corpus" in capsys.readouterr().out
    assert len(list((tmp_path / "c").glob("*.json"))) == 1


def test_a_users_own_rule(capsys, tmp_path, monkeypatch):
    (tmp_path / "my_rule_for_fuzz.py").write_text(
        "import numpy as np\ndef make():\n    return lambda g: g / g.sum()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(RuntimeWarning):
        assert main(["fuzz", "my_rule_for_fuzz:make", "--steps", "500", "--no-corpus"]) == 1
    out = capsys.readouterr().out
    assert "[[0.0, 0.0]]" in out


def test_a_time_alone_is_a_budget(capsys):
    assert main(["fuzz", "fixed", "--property", "simplex", "--time", "0.2", "--no-corpus"]) == 0
    assert "held" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "target 'nothing' is unknown"),
        (["--property", "nothing"], "property 'nothing' is unknown"),
        (["--bound", "0.1"], "--bound 0.1"),
        (["--bound", "0.9:0.1"], "bound = 0.9:0.1"),
        (["--steps", "0"], "steps = 0"),
        (["--time", "-1"], "time = -1.0"),
        (["--workers", "0"], "workers = 0"),
        (["fixed", "--bound", "published"], "states no floor"),
        (["--beta", "2"], "beta = 2.0"),
        (["math:pi"], "math:pi"),
    ],
)
def test_bad_input_is_one_line(arguments, words, capsys):
    assert main(["fuzz", "--no-corpus", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_readers_without_atheris_say_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *_: None if name == "atheris" else sys
    )
    assert main(["fuzz", "readers"]) == 2
    assert "pip install 'gabactl[fuzz]'" in capsys.readouterr().err


@pytest.mark.slow
def test_readers_hold_for_a_while(capsys, tmp_path):
    pytest.importorskip("atheris")
    arguments = ["fuzz", "readers", "--time", "30", "--json", "--corpus", str(tmp_path)]
    code = main(arguments)
    found = json.loads(capsys.readouterr().out)
    (result,) = found["results"]
    assert result["executions"] > 100
    assert code == found["violated"] == 0, result["finding"]


def test_the_help_says_that_it_runs_code(capsys):
    assert main(["fuzz", "--help"]) == 0
    assert "only name code you trust" in " ".join(capsys.readouterr().out.split())
