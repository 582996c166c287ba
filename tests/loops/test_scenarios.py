"""Scenario files: all of ours run, and a bad one says file, key and remedy in one line."""

from __future__ import annotations

import pytest

from gabactl.base.errors import InputError
from gabactl.loops.scenarios import bundled_scenarios, load_scenario
from gabactl.loops.simulate import simulate

GOOD = """
title = "test"
tasks = 2

[disturbance]
kind = "levels"
ratios = [50, 500]
holds = [30, 40]

[[disturbance.spikes]]
factor = 10
at = 5

[[disturbance.dropouts]]
at = 50
width = 3
kind = "lost"

[losses]
initial = [20.0, 2.0]
final = [10.0, 1.0]
time_constant = 50.0

[plant]
kind = "log-ratio"
rho = 0.5

[balancers.gaba]
beta = 0.9

[balancers.other]
method = "gradnorm"
lr = 0.05

[run]
noise = 0.3
seeds = 3
tolerance = 0.02
"""


def write(folder, text):
    file = folder / "scenario.toml"
    file.write_text(text)
    return file


def test_a_good_scenario_is_read_whole(tmp_path):
    scenario = load_scenario(write(tmp_path, GOOD))
    assert scenario.profile.steps == 70
    assert scenario.profile.lost[50:53].all()
    assert scenario.profile.losses[0].tolist() == [20.0, 2.0]
    assert scenario.plant.rho == 0.5
    assert scenario.balancers["gaba"].spec.beta == 0.9
    assert scenario.balancers["other"].lr == 0.05
    assert (scenario.noise, scenario.seeds) == (0.3, (0, 1, 2))
    assert list(scenario.choose("other,fixed")) == ["other", "fixed"]


@pytest.mark.parametrize("name", sorted(bundled_scenarios()))
def test_bundled_scenarios_load(name):
    if name == "recorded":
        from gabactl.traces import bundled

        if "fd001-equal" not in bundled():
            pytest.skip("the bundled trace is not in this checkout")
    scenario = load_scenario(name)
    assert scenario.title != name
    assert scenario.description
    first = next(iter(scenario.balancers.values()))
    result = simulate(first, scenario.profile, scenario.plant, noise=scenario.noise)
    assert result.steps == scenario.profile.steps


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[run]", "[runs]", ["unknown key 'runs'", "balancers"]),
        ("ratios =", "ratio =", ["unknown key 'ratio'", "[disturbance]", "ratios"]),
        ("beta = 0.9", "beta = 1.0", ["balancers.gaba", "beta = 1.0", "0.99"]),
        ("beta = 0.9", "betta = 0.9", ["balancers.gaba", "betta", "beta"]),
        ("noise = 0.3", "noise = -0.3", ["run.noise", "-0.3", ">= 0"]),
        ("noise = 0.3", 'noise = "loud"', ["run.noise", "loud"]),
        ("noise = 0.3", "noise = nan", ["run.noise", "nan"]),
        ("ratios = [50, 500]", "ratios = [50, nan]", ["disturbance", "nan", "positive"]),
        ("ratios = [50, 500]", 'ratios = [50, "x"]', ["disturbance"]),
        ("holds = [30, 40]", "holds = [30]", ["disturbance", "one hold"]),
        ("holds = [30, 40]", "holds = [30, 0.5]", ["disturbance", "0.5", ">= 1"]),
        ("at = 5\n", "at = 500\n", ["disturbance.spikes", "500", "within"]),
        ("factor = 10\n", "", ["disturbance.spikes", "factor"]),
        ('kind = "lost"', 'kind = "gone"', ["disturbance.dropouts", "gone", "lost or zero"]),
        ("final = [10.0, 1.0]", "final = [10.0, -1.0]", ["losses", "positive"]),
        ("rho = 0.5", "rho = nan", ["plant", "rho = nan"]),
        ("rho = 0.5", "gain = 0.5", ["unknown key 'gain'", "[plant]", "rho"]),
        ('kind = "log-ratio"', 'kind = "motor"', ["plant.kind", "motor", "log-ratio"]),
        ('method = "gradnorm"', 'method = "os:system"', ["balancers.other", "--balancers"]),
        ('method = "gradnorm"', 'method = "gradnrom"', ["balancers.other", "gradnrom", "gradnorm"]),
        ("tasks = 2", "tasks = 3", ["losses"]),
        ("tasks = 2", "tasks = 1", ["tasks = 1", "from 2"]),
        ("seeds = 3", "seeds = 0", ["run.seeds = 0"]),
        ("tolerance = 0.02", "tolerance = 2.0", ["run.tolerance = 2.0", "(0, 1)"]),
        (
            'kind = "levels"\nratios = [50, 500]\nholds = [30, 40]',
            'kind = "trace"\npath = "no.parquet"',
            ["disturbance", "no.parquet"],
        ),
        (
            'kind = "levels"\nratios = [50, 500]\nholds = [30, 40]',
            'kind = "trace"',
            ["disturbance", "path is missing"],
        ),
        ("[disturbance]", "[disturbance", ["not valid TOML"]),
    ],
)
def test_bad_scenarios_name_file_key_and_remedy(tmp_path, old, new, words):
    assert old in GOOD
    file = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_scenario(file)
    message = str(caught.value)
    assert message.startswith(str(file)), message
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_unknown_names_and_missing_files():
    with pytest.raises(InputError, match=r"neither a file nor one of: .*published"):
        load_scenario("publsihed")
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        load_scenario("nowhere.toml")
