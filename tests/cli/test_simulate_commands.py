"""``gabactl simulate`` and ``sweep`` as a user types them."""

from __future__ import annotations

import json

import pytest

from gabactl.cli import main

SCENARIO = """
[disturbance]
kind = "levels"
ratios = [50, 500]
holds = [300, 500]

[balancers.gaba]

[balancers.gradnorm]

[run]
noise = 0.1
seeds = 2
"""

GRID = """
[disturbance]
kind = "levels"
ratios = [4]
holds = [100]

[axes]
beta = [0.5, 0.9]
rho = { from = -1, to = 0.9, points = 8 }
"""


@pytest.fixture
def scenario(tmp_path):
    file = tmp_path / "scenario.toml"
    file.write_text(SCENARIO)
    return str(file)


def strict(text: str):
    return json.loads(text, parse_constant=pytest.fail)


def test_simulate(scenario, tmp_path, capsys):
    assert main(["simulate", scenario]) == 0
    assert "imbalance" in capsys.readouterr().out
    picture, steps = tmp_path / "p.png", tmp_path / "s.csv"
    code = main(
        ["simulate", scenario, "--json", "--seed", "3", "--plot", str(picture), "-o", str(steps)]
    )
    assert code == 0
    record = strict(capsys.readouterr().out)
    assert record["seed"] == 3
    assert [r["start"] for r in record["responses"]] == [0, 300]
    assert picture.stat().st_size > 1000
    assert len(steps.read_text().splitlines()) == 801


def test_simulate_with_gaba_options(scenario, capsys):
    assert main(["simulate", scenario, "--json", "--floor", "0.001", "--beta", "0.9"]) == 0
    settings = strict(capsys.readouterr().out)["settings"]
    assert (settings["floor"], settings["beta"], settings["warmup"]) == (0.001, 0.9, 100)
    assert main(["simulate", scenario, "--balancer", "gradnorm", "--floor", "0.001"]) == 2
    assert "do not apply" in capsys.readouterr().err


def test_list(capsys):
    assert main(["simulate", "--list"]) == 0
    assert "published" in capsys.readouterr().out
    assert main(["simulate", "--list", "--json"]) == 0
    assert "published" in strict(capsys.readouterr().out)["scenarios"]


def test_several_balancers(scenario, tmp_path, capsys):
    picture = tmp_path / "c.svg"
    options = ["--balancers", "gaba,gradnorm,fixed", "--seeds", "3", "--plot", str(picture)]
    assert main(["simulate", scenario, *options]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("gaba", "gradnorm", "fixed", "3 seeds"))
    assert picture.read_text().startswith("<?xml")
    assert main(["simulate", scenario, "--balancers", "all", "--json"]) == 0
    assert set(strict(capsys.readouterr().out)["balancers"]) == {"gaba", "gradnorm"}


def test_gaba_options_reach_the_gaba_of_a_comparison(scenario, capsys):
    def final(*options):
        words = ["simulate", scenario, "--balancers", "all", "--seeds", "1", "--json"]
        assert main([*words, *options]) == 0
        return strict(capsys.readouterr().out)["balancers"]

    plain, fast = final(), final("--beta", "0.5")
    assert plain["gaba"] != fast["gaba"]
    assert plain["gradnorm"] == fast["gradnorm"]


def test_sweep(tmp_path, capsys):
    grid, folder = tmp_path / "grid.toml", tmp_path / "out"
    grid.write_text(GRID)
    command = ["sweep", str(grid), "-o", str(folder), "--workers", "1", "--json"]
    assert main([*command, "--plot", str(tmp_path / "map.png"), "--value", "stable"]) == 0
    assert strict(capsys.readouterr().out)["manifest"]["loops"] == 16
    assert main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["simulate"],
        ["simulate", "nowhere"],
        ["simulate", "nowhere.toml"],
        ["simulate", "published", "--balancers", "gaba,nothing"],
        ["simulate", "published", "--balancers", ","],
        ["simulate", "published", "--balancers", "all", "--seeds", "0"],
        ["simulate", "published", "--balancers", "gradnorm", "--floor", "0.01"],
        ["simulate", "published", "--balancers", "all", "--balancer", "gaba"],
        ["simulate", "published", "--balancers", "all", "--seed", "1"],
        ["simulate", "published", "--balancers", "all", "-o", "steps.csv"],
        ["simulate", "published", "--balancer", "gaba,gradnorm"],
        ["simulate", "published", "--seeds", "2"],
        ["simulate", "published", "--plot", "picture.bmp"],
        ["sweep", "nowhere", "-o", "out"],
        ["sweep", "sweep_stability", "-o", "out", "--engine", "slurm"],
        ["sweep", "sweep_stability", "-o", "out", "--address", "tcp://x"],
        ["sweep", "sweep_stability", "-o", "out", "--workers", "0"],
    ],
)
def test_bad_input_is_one_line_and_exit_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.strip().splitlines()) == 1
