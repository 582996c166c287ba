"""The command line as a whole: version, help, errors, exit codes."""

import pkgutil
import subprocess
import sys

import pytest

import gabactl.cli
from gabactl.cli import main


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "gabactl", *arguments], capture_output=True, text=True, check=False
    )


def test_version():
    done = run("--version")
    assert (done.returncode, done.stdout.startswith("gabactl 0.")) == (0, True)


def test_no_command_shows_the_help():
    done = run()
    assert done.returncode == 0
    assert "Your run:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "No such command"),
        (["report", "--nothing"], "No such option"),
        (["report", "missing.parquet"], "missing.parquet"),
        (["report", "--beta", "1"], "beta = 1.0 is not in [0, 1)"),
        (["report", "--beta", "x"], "beta"),
        (["report", "--spec", "missing.toml"], "missing.toml"),
        (["report", "--tasks", "3"], "tasks"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert err.startswith("gabactl: ")
    assert len(err.splitlines()) == 1


def test_a_bug_of_ours_is_no_traceback_either(monkeypatch, capsys):
    import gabactl.reports

    monkeypatch.setattr(gabactl.reports, "report", lambda *a, **k: 1 / 0)
    assert main(["report"]) == 70
    assert "internal error: ZeroDivisionError" in capsys.readouterr().err


def test_every_command_has_a_help_text(capsys):
    from gabactl.cli import build_app

    app = build_app()

    names = [c.name or c.callback.__name__ for c in app.registered_commands]
    names += [g.name or g.typer_instance.info.name for g in app.registered_groups]
    assert len(names) == 14
    for name in names:
        assert main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert "Usage: gabactl" in text
        lines = text.splitlines()
        assert len(lines[2].strip()) > 10, f"{name} says nothing of itself"


def test_the_list_of_commands_cuts_no_sentence(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["--help"]) == 0
    told = capsys.readouterr().out.partition("Your run:")[2].splitlines()
    assert len(told) > 14
    assert not [line for line in told if line.endswith("...")]


def test_the_help_lists_the_commands_by_who_asks(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    places = [told.index(f"\n{title}:\n") for title in ("Your run", "Your loop", "The paper")]
    assert places == sorted(places)
    assert places[0] < told.index("\n  check") < places[1] < told.index("\n  fuzz") < places[2]


def test_every_module_is_named_as_its_command():
    """Only the module of the command that is called is loaded, by this name."""
    from gabactl.cli import _COMMANDS, build_app

    modules = {m.name for m in pkgutil.iter_modules(gabactl.cli.__path__)}
    assert {name for name in modules if not name.startswith("_")} == set(_COMMANDS)
    for module in _COMMANDS:
        app = build_app([module])
        commands = [c.name or c.callback.__name__ for c in app.registered_commands]
        groups = [g.name or g.typer_instance.info.name for g in app.registered_groups]
        assert commands + groups == [module]


def test_only_the_module_that_is_called_is_loaded():
    code = (
        "import sys; from gabactl.cli import main; main(['analyze', '--help']); "
        "print([m for m in sys.modules if m in ('gabactl.cli.report', 'gabactl.nn.training.settings')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["report"], "Usage: gabactl report [OPTIONS] [TRACE]"),
        (["check"], "Usage: gabactl check [OPTIONS] TRACE..."),
        (["cmapss", "campaign", "run"], "Usage: gabactl cmapss campaign run [OPTIONS] PLAN"),
    ],
)
def test_a_help_reads_without_the_noise_of_types(command, words, capsys):
    assert main([*command, "--help"]) == 0
    told = capsys.readouterr().out
    assert told.splitlines()[0] == words
    for noise in ("<str>", "<path>", "[[", "x>=", "{TRACE}", "((", "default: (", "TEXT"):
        assert noise not in told, noise
