"""The commands that README and documentation show are run, in the order they are shown."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from gabactl.cli import _COMMANDS, main

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.M | re.S)
#: Commands that are shown but not run here, and why.
NOT_RUN = {
    "make demo": "installs the package: run by hand before a release, and by CI",
    "make test": "is this",
    "gabactl cmapss data fetch": "needs the network",
    "gabactl cmapss train": "needs the data: tests/cli/test_train.py",
}
#: Findings: the toy's floor is saturated, which is an alarm.
EXIT_CODES = {"gabactl watch run.parquet": 1}
FAST = ("--fuzz-steps", "100000")


def blocks(page: Path):
    for indent, kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        yield kind, "\n".join(line.removeprefix(indent) for line in text.splitlines())


def commands(text: str):
    for line in text.replace("\\\n", " ").splitlines():
        shown = line.removeprefix("$ ").split("#")[0].strip()
        if shown and (line.startswith("$ ") or shown.startswith("make ")):
            yield shown


def run(command: str, folder: Path) -> None:
    if any(command.startswith(start) for start in NOT_RUN):
        return
    words = shlex.split(command)
    if words[0] == "gabactl":
        extra = FAST if words[1] == "report" else ()
        if "--pdf" in words:
            from gabactl.base.errors import InputError
            from gabactl.reports.pdf import find_browser

            try:
                find_browser()
            except InputError:
                return
        assert main([*words[1:], *extra]) == EXIT_CODES.get(command, 0), command
    else:
        assert words[0] == "python", command
        subprocess.run([sys.executable, *words[1:]], check=True, cwd=folder)


def follow(page: str, folder: Path) -> int:
    """Do what a page says, files and commands; returns how many commands were met."""
    count = 0
    for kind, text in blocks(ROOT / page):
        name = re.match(r"# file: (\S+)\n", text)
        if name:
            body = text if kind == "python" else text[name.end() :]
            (folder / name[1]).write_text(body + "\n", encoding="utf-8")
        if kind == "console":
            for command in commands(text):
                run(command, folder)
                count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("README.md", 2),
        ("docs/tutorials/first-report.md", 6),
        ("docs/howto.md", 7),
    ],
)
def test_pages_that_stand_alone(page, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert follow(page, tmp_path) >= least


@pytest.mark.slow
def test_the_path_of_a_new_user(tmp_path, monkeypatch, capsys):
    """From a training loop of one's own to the verdict on its floor."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    assert follow("docs/tutorials/in-my-loop.md", tmp_path) == 4
    out = capsys.readouterr().out
    assert re.search(r"floor saturated\?\s+Yes", out)
    assert re.search(r"verdict\s+agrees", out)
    assert follow("docs/tutorials/is-my-floor-saturated.md", tmp_path) == 4
    assert re.search(r"floor saturated\?\s+No", capsys.readouterr().out)


def test_what_the_readme_names_exists(capsys):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = {words.split()[0] for words in re.findall(r"`gabactl ([a-z][^`]*)`", text)}
    assert len(named) > 10
    for name in named:
        assert name in _COMMANDS, name
        assert main([name, "--help"]) == 0
    capsys.readouterr()


def test_the_readmes_counterexample_is_found(capsys):
    assert main(["fuzz", "--guard", "none", "--bound", "published"]) == 1
    capsys.readouterr()


def test_every_command_of_the_pages_exists():
    """Whatever page shows it, also those whose commands are not run here."""
    shown = 0
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        if "_build" in page.relative_to(ROOT).parts:
            continue
        for kind, text in blocks(page):
            if kind != "console":
                continue
            for command in commands(text):
                words = shlex.split(command)
                assert words[0] in ("gabactl", "make", "python", "pip", "tensorboard"), (
                    page,
                    command,
                )
                if words[0] == "gabactl":
                    assert words[1] in _COMMANDS, (page, command)
                    shown += 1
    assert shown > 15
