"""``gabactl identify`` and ``gabactl tune`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from gabactl import GabaSpec
from gabactl.cli import main
from gabactl.identification import simulate_excited
from gabactl.traces import Trace, write_parquet


def record(folder: Path, name: str, rho: float, *, excited: bool = True, **more: object) -> Path:
    given = {"seed": 1, "excitation_seed": 1, **more}
    run = simulate_excited(rho, 0.8, steps=1500, **given)
    w = 1.0 / (1.0 + np.exp(-run.actuation[0]))
    half = run.log_ratio[0] / 2
    trace = Trace.from_arrays(
        np.stack([np.exp(half), np.exp(-half)], axis=1),
        weights=np.stack([w, 1 - w], axis=1),
        excitation=run.excitation[0] if excited else None,
        metadata={"spec": run.spec.to_dict(), "excitation": "prbs:amplitude=0.5,period=50,seed=1"},
    )
    file = folder / f"{name}.parquet"
    write_parquet(trace, file)
    return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("identify")
    return {
        "run": record(folder, "run", -0.8),
        "twin": record(folder, "twin", -0.8, inverted=True, seed=2),
        "plain": record(folder, "plain", -0.8, excited=False, amplitude=0.0),
    }


def test_a_table_for_people(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", str(files["run"])]) == 0
    out = capsys.readouterr().out
    assert "negative feedback (more weight, larger gradients)" in out
    assert "stable inside the floor" in out


def test_json_of_several_runs(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    picture = tmp_path / "response.svg"
    command = ["identify", str(files["run"]), str(files["twin"]), "--json", "--plot", str(picture)]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["feedback"] for item in found] == ["negative", "negative"]
    assert picture.stat().st_size > 1000


def test_twins(files: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    command = ["identify", "--paired", str(files["run"]), str(files["twin"]), "--json"]
    assert main(command) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["paired"]
    assert found["rho_low"] < -0.8 < found["rho_high"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["plain"], "closed-loop data cannot tell the plant from the noise; record a run with"),
        (["--paired", "run"], "give pairs"),
        (["--paired", "run", "run"], "not twins"),
        (["run", "--level", "2"], "level"),
        (["nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_refusals_are_one_line(
    files: dict[str, Path],
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [str(files.get(item, item)) for item in arguments]
    assert main(["identify", *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1


def test_an_option_beats_the_recorded_settings(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["identify", str(files["run"]), "--json", "--beta", "0.5"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["spec"]["beta"] == 0.5
    assert found["spec"]["warmup"] == 0


def test_tune_from_a_range(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml, picture = tmp_path / "spec.toml", tmp_path / "trade.png"
    command = ["tune", "--ratio-range", "50:2400", "--noise", "0.5", "--json"]
    assert main([*command, "-o", str(toml), "--plot", str(picture)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert GabaSpec.from_toml(toml) == GabaSpec.from_dict(found["spec"])
    assert picture.stat().st_size > 1000
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".tmp"] == []


def test_tune_from_an_excited_trace_uses_its_plant(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(files["run"]), "--json", "--drift", "0.01"]) == 0
    work = json.loads(capsys.readouterr().out)["workload"]
    assert work["rho"][0] < -0.8 < work["rho"][1] < 0
    assert work["drift_std"] == 0.01
    assert "identified" in work["source"]


def test_tune_says_when_the_plant_is_not_known(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(files["plain"])]) == 0
    assert "rho not identified" in capsys.readouterr().out


def test_tune_for_more_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--ratio-range", "1:100", "--tasks", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["spec"]["law"] == "inverse"
    assert found["workload"]["sensor_cost"] == pytest.approx(2.2)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--ratio-range", "5"],
        ["--ratio-range", "9:5"],
        ["--ratio-range", "a:b"],
        ["--ratio-range", "1:5", "--rho", "1.1"],
        ["--ratio-range", "1:5", "--rho", "x"],
        ["--ratio-range", "1:5", "--tasks", "1"],
        ["--ratio-range", "1:5", "--ramp-steps", "0"],
        ["--ratio-range", "1:5", "--reading-cost", "-1"],
        ["--ratio-range", "1:5", "-o", "no/such/folder/spec.toml"],
        ["--ratio-range", "1:5", "-o", "picture.png"],
    ],
)
def test_tune_refusals_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
