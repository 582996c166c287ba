"""The campaign file: every run complete, every mistake one line with the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.nn.campaigns import load_campaign

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
[campaign]
name = "c"
subsets = ["FD001", "FD002"]
seeds = [1, 2]
"""
METHOD = """
[[method]]
name = "fixed"
balancer = "fixed"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "plan.toml"
    file.write_text(text)
    return file


def test_first_seed_of_everything_comes_first(tmp_path: Path) -> None:
    plan = load_campaign(
        write(
            tmp_path,
            HEAD
            + "epochs = 7\nmodel = 'paper'\nthreads = 3\ncheckpoint_every = 9\n"
            + METHOD
            + '[[method]]\nname = "a"\nbalancer = "gaba"\nepochs = 4\nspec = {floor = 1e-4}\n',
        )
    )
    assert [run.name for run in plan.runs] == [
        "FD001-fixed-seed1",
        "FD002-fixed-seed1",
        "FD001-a-seed1",
        "FD002-a-seed1",
        "FD001-fixed-seed2",
        "FD002-fixed-seed2",
        "FD001-a-seed2",
        "FD002-a-seed2",
    ]
    assert (plan.threads, plan.checkpoint_every) == (3, 9)
    assert tuple(dict.fromkeys(run.method for run in plan.runs)) == ("fixed", "a")
    assert plan.subsets == ("FD001", "FD002")
    last = plan.run("FD002-a-seed2").settings
    assert (last.subset, last.seed, last.epochs, last.model) == ("FD002", 2, 4, "paper")
    assert last.spec == GabaSpec(floor=1e-4)
    assert plan.runs[0].settings.epochs == 7
    with pytest.raises(InputError, match="no run 'x': the first of 8 is FD001-fixed-seed1"):
        plan.run("x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[campaign", "not valid TOML"),
        (METHOD, r"campaign is missing or not a table: add \[campaign\]"),
        (HEAD, r"there is no method: add \[\[method\]\]"),
        (HEAD + "epoch = 3" + METHOD, r"unknown key 'epoch' in \[campaign\]: choose from"),
        (HEAD + METHOD + "florr = 1", "unknown key 'florr' in method 'fixed'"),
        (HEAD + METHOD + "seed = 1", "unknown key 'seed' in method 'fixed'"),
        ("x = 1" + HEAD + METHOD, "unknown key 'x' in the file"),
        (HEAD + METHOD + METHOD, "method 'fixed' is there twice"),
        (HEAD + METHOD + "lr = -1", r"method 'fixed': lr = -1 is not in \(0, inf\)"),
        (HEAD + METHOD + "lr = '1'", "method 'fixed': lr = '1' is not in"),
        (HEAD + METHOD + "spec = {flor = 1}", "method 'fixed': spec: unknown setting 'flor'"),
        (HEAD + METHOD + "spec = 3", "method 'fixed': spec is not a table"),
        (HEAD + METHOD + "weights = 3", "method 'fixed': a value is missing or of the wrong type"),
        (HEAD + METHOD + "weights = ['a', 'b']", "method 'fixed': a value is missing or of the wr"),
        (HEAD + '[[method]]\nname = "a"', "method 'a' has no balancer"),
        (HEAD + '[[method]]\nname = "../a"\nbalancer = "fixed"', "method.name = '../a': give a na"),
        (HEAD + "method = 3", "unknown key 'method' in"),
        (HEAD.replace("FD002", "FD005") + METHOD, "subsets = .*FD005.*: give a list out of FD001"),
        (HEAD.replace("[1, 2]", "[1, -2]") + METHOD, "seeds = .*: give a list of whole numbers"),
        (HEAD.replace("[1, 2]", "[true]") + METHOD, "seeds = .*: give a list of whole numbers"),
        (HEAD.replace('"c"', '"a/b"') + METHOD, "campaign.name = 'a/b': give a name"),
        (HEAD + "threads = 0" + METHOD, "campaign.threads = 0 is not a whole number"),
        (HEAD.replace("[1, 2]", str(list(range(9000)))) + METHOD, "more than 10000 runs"),
    ],
)
def test_mistakes_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_campaign(write(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "plan.toml: " in str(caught.value)


def test_a_shipped_plan_by_name() -> None:
    file = ROOT / "simulations" / "cmapss_campaign_reduced.toml"
    assert load_campaign("cmapss_campaign_reduced") == load_campaign(file)
    with pytest.raises(InputError, match="campaign 'reduced' is neither a file nor one of: cmapss"):
        load_campaign("reduced")


def test_the_shipped_plans() -> None:
    full = load_campaign(ROOT / "simulations" / "cmapss_campaign.toml")
    assert len(full.runs) == 4 * 5 * 14
    assert all(r.settings.model == "paper" and r.settings.epochs == 500 for r in full.runs)
    assert all(r.settings.patience for r in full.runs)
    assert full.run("FD002-grace-seed1024").settings.sample_weights == "amnl"
    small = load_campaign(ROOT / "simulations" / "cmapss_campaign_reduced.toml")
    assert len(small.runs) == 2 * 2 * 8
    assert small.run("FD001-gaba-authority-seed42").settings.spec == GabaSpec(floor=1e-4)
    assert small.run("FD001-gaba-project-seed42").settings.spec.floor_mode == "project"
    # GABA's floor of 0.05 renormalised: 0.05 / 1.05 and 1 / 1.05.
    constant = small.run("FD001-constant-saturated-seed42").settings.weights
    assert constant == pytest.approx((0.05 / 1.05, 1 / 1.05), abs=2e-5)
    assert {run.method for run in small.runs} < {run.method for run in full.runs}
