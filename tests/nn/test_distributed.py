"""Data-parallel runs with gloo: 2 and 4 processes, started as ranks_worker.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gabactl.base.errors import InputError
from gabactl.nn import GABALoss
from gabactl.nn.distributed import Reducer, reducer_for

WORKER = Path(__file__).with_name("ranks_worker.py")
TWO = [
    "mean-full",
    "mean-reuse",
    "mean-reuse-bare",
    "mean-reuse-interval",
    "mean-reuse-micro",
    "norms-full",
    "norms-reuse",
    "local-full",
    "uneven",
    "poison",
    "poison-norms",
    "unset",
    "disagree",
    "fsdp-full",
    "fsdp-reuse",
    "fsdp-reuse-micro",
    "fsdp-reuse-interval",
    "fsdp-full-scaled",
    "fsdp-reuse-scaled",
    "fsdp-unnamed",
    "fsdp-last-layer",
]
#: Scenarios that end in an error that is looked at.
ERRORS = ("unset", "disagree", "fsdp-unnamed", "fsdp-last-layer")


def launch(world, folder, names, timeout=400):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(WORKER.parents[1]), str(WORKER.parents[2])]),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(rank), str(world), str(folder), *names],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return folder


def load(folder, world):
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The union of the batches on one process."""
    folder = launch(1, tmp_path_factory.mktemp("alone"), ["alone"])
    return torch.load(folder / "alone.pt", weights_only=True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return load(launch(2, tmp_path_factory.mktemp("two"), TWO), 2)


def worst(a, b):
    return float((a - b).abs().max())


class TestTwoRanks:
    @pytest.mark.parametrize("name", [n for n in TWO if n not in ERRORS])
    def test_ranks_hold_bit_equal_weights_and_parameters(self, two, name):
        first, second = (rank[name] for rank in two)
        assert torch.equal(first["parameters"], second["parameters"])
        assert torch.equal(first["weights"], second["weights"]) == (name != "local-full")

    @pytest.mark.parametrize(
        "name",
        [
            "mean-full",
            "mean-reuse",
            "mean-reuse-bare",
            "mean-reuse-micro",
            "uneven",
            "fsdp-full",
            "fsdp-reuse",
            "fsdp-reuse-micro",
            "fsdp-full-scaled",
            "fsdp-reuse-scaled",
        ],
    )
    def test_norm_of_mean_equals_one_process_on_the_union(self, alone, two, name):
        got = two[0][name]
        assert worst(got["weights"], alone["weights"]) < 1e-12
        assert worst(got["parameters"], alone["parameters"]) < 1e-12
        assert abs(alone["weights"][-1][0] - 0.5) > 0.1

    def test_reuse_equals_full_with_the_mean_of_norms(self, two):
        full, reused = two[0]["norms-full"], two[0]["norms-reuse"]
        assert worst(full["weights"], reused["weights"]) < 1e-12
        assert worst(full["parameters"], reused["parameters"]) < 1e-12

    def test_the_three_readings_differ(self, two):
        weights = [
            two[0][n]["weights"][-1][0].item() for n in ("mean-full", "norms-full", "local-full")
        ]
        assert len({round(w, 4) for w in weights}) == 3

    @pytest.mark.parametrize("name", ["poison", "poison-norms"])
    def test_a_nan_on_one_rank_makes_all_hold(self, two, name):
        for rank in two:
            averages = rank[name]["averages"]
            assert torch.equal(averages[5], averages[4])
            assert not torch.equal(averages[4], averages[3])

    def test_an_unset_choice_is_refused(self, two):
        for rank in two:
            assert rank["unset"].startswith(
                "InputError: 2 ranks train together and reduce is not set"
            )

    def test_ranks_that_disagree_all_hear_of_it(self, two):
        for rank in two:
            assert "RuntimeError: the ranks hold different weights at step 1" in rank["disagree"]

    def test_a_sampled_sensor_on_sharded_parameters(self, two):
        got, expected = (two[0][n] for n in ("fsdp-reuse-interval", "mean-reuse-interval"))
        assert worst(got["weights"], expected["weights"]) < 1e-12
        assert worst(got["parameters"], expected["parameters"]) < 1e-12

    def test_what_sharded_parameters_do_not_allow_says_what_does(self, two):
        for rank in two:
            assert "GABALoss(reduce='norm_of_mean', sharded=model)" in rank["fsdp-unnamed"]
            assert "or the representation sensor" in rank["fsdp-last-layer"]


@pytest.mark.slow
def test_four_ranks(alone, tmp_path):
    names = ["mean-full", "mean-reuse", "norms-full", "norms-reuse", "uneven", "poison"]
    ranks = load(launch(4, tmp_path, names), 4)
    for name in names:
        assert all(torch.equal(r[name]["weights"], ranks[0][name]["weights"]) for r in ranks)
        assert all(torch.equal(r[name]["parameters"], ranks[0][name]["parameters"]) for r in ranks)
    for name in ("mean-full", "mean-reuse", "uneven"):
        assert worst(ranks[0][name]["parameters"], alone["parameters"]) < 1e-12


def test_a_rank_that_dies_gives_a_clear_error(tmp_path):
    launch(2, tmp_path, ["die"], timeout=240)
    seen = torch.load(tmp_path / "rank0.pt", weights_only=True)["die"]
    assert seen.startswith("RankLostError: rank 0: the other ranks did not answer")
    assert "One has stopped" in seen


class TestAlone:
    def test_nothing_to_reduce(self):
        assert reducer_for(None) is None
        assert reducer_for("local") is None

    def test_bad_choices(self):
        with pytest.raises(InputError, match="reduce = 'mean' is unknown"):
            reducer_for("mean")
        with pytest.raises(InputError, match="reduce = 'sum' is unknown"):
            GABALoss(reduce="sum")
        with pytest.raises(InputError, match="samples = -1"):
            Reducer("local", None, -1)
