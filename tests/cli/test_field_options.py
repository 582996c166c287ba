"""Options come from the fields of the dataclass that they set."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

import pytest
import typer
import typer.main

from gabactl.cli import build_app
from gabactl.cli import main as gabactl
from gabactl.cli._fields import Argument, Row, field_options, takes
from gabactl.cli._help import PlainCommand
from gabactl.cli._options import options as described
from gabactl.cli._spec import ROWS, spec_options
from gabactl.cli.cmapss.train import ROWS as TRAINING_ROWS
from gabactl.law.spec import GabaSpec
from gabactl.nn.training.settings import TrainingSettings


@dataclass(frozen=True)
class Longer(GabaSpec):
    leak: float = 0.125
    kind: Literal["one", "two", "three"] = "two"
    limit: int | None = None


def options(command: Any) -> dict[str, Any]:
    """Options as typer builds them, by their parameters."""
    app = typer.Typer()
    app.command(cls=PlainCommand)(command)
    return {p.name: p for p in typer.main.get_command(app).params}


def test_a_field_more_is_an_option_more() -> None:
    before = [p.name for p in field_options(GabaSpec, ROWS)]
    assert before == [f.name for f in fields(GabaSpec)]
    assert [p.name for p in field_options(Longer, ROWS)] == [*before, "leak", "kind", "limit"]


def test_type_default_and_words_are_the_fields() -> None:
    @takes("given", Longer, {**ROWS, "kind": Row("NAME", "One of {}.")})
    def command(given: dict[str, Any]) -> None:
        print(sorted(given.items()))

    found = options(command)
    assert found["given_leak"].opts == ["--leak"]
    assert found["given_leak"].show_default == "0.125"
    assert found["given_kind"].help == "One of one, two or three."
    assert found["given_n_tasks"].opts == ["--tasks"]
    assert found["given_limit"].show_default is False
    assert all(p.metavar for name, p in found.items() if name.startswith("given_"))


def test_what_is_not_given_is_left_to_the_dataclass(capsys: pytest.CaptureFixture[str]) -> None:
    @takes("given", Longer, {"leak": Row("X", "Twice.", parse=lambda text: 2 * float(text))})
    def command(given: dict[str, Any]) -> None:
        print(sorted(given.items()))

    app = typer.Typer()
    app.command(cls=PlainCommand)(command)
    app(["--leak", "0.5", "--warmup", "7"], standalone_mode=False)
    assert capsys.readouterr().out.strip() == "[('leak', 1.0), ('warmup', 7)]"


def test_a_parameter_has_its_row_and_a_shared_one_the_usual() -> None:
    @described(
        file=Argument("FILE", "What is read."),
        kind=Row("NAME", "One of {}.", "the first", "-k --sort", offer=("one", "two")),
        share=Row("X", "At least 0.", least=0.0),
    )
    def command(file: str, kind: str | None = None, share: float = 0.5, seed: int = 3) -> None:
        print(file, kind, share, seed)

    found = options(command)
    assert found["file"].param_type_name == "argument"
    assert found["kind"].opts == ["-k", "--sort"]
    assert found["kind"].help == "One of one or two."
    assert found["kind"].show_default == "the first"
    assert found["seed"].opts == ["--seed"]
    assert "random" in found["seed"].help
    app = typer.Typer()
    app.command(cls=PlainCommand)(command)
    with pytest.raises(Exception, match="0"):
        app(["here", "--share", "-1"], standalone_mode=False)


def test_every_setting_of_gaba_has_its_option_and_its_sentence() -> None:
    @spec_options
    def command(spec: Any) -> None:
        """Nothing."""

    found = options(command)
    for field in fields(GabaSpec):
        assert found[f"spec_{field.name}"].show_default == str(field.default)
    assert set(ROWS) == {f.name for f in fields(GabaSpec)}


def test_every_setting_of_a_training_run_has_its_option_and_its_sentence() -> None:
    assert set(TRAINING_ROWS) == {f.name for f in fields(TrainingSettings)}
    app: Any = typer.main.get_command(build_app(["cmapss"]))
    train = app.commands["cmapss"].commands["train"]
    flags = {flag for option in train.params for flag in option.opts}
    composite = {"spec"}
    for field in fields(TrainingSettings):
        if field.name not in composite:
            assert "--" + field.name.replace("_", "-") in flags


def test_a_word_the_field_does_not_take_is_refused_by_the_dataclass(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gabactl(["analyze", "--law", "other"]) == 2
    assert "law = 'other'" in capsys.readouterr().err
