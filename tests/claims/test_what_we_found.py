"""The campaign's figures, their records, and the page that is made of them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaign_claims import METRICS, campaign_records, read_campaign

from gabactl import GabaSpec, InputError
from gabactl.claims import ledger
from gabactl.claims import records as record_module
from gabactl.claims import settle_claims as check_claims
from gabactl.claims.check import _settle
from gabactl.claims.evidence import Evidence, Finding
from gabactl.claims.records import from_records, read_record
from gabactl.runs.replay import replay
from gabactl.traces import Trace, write_parquet

ROOT = Path(__file__).parents[2]
STEPS = 700


def trace_of(method: str, seed: int) -> Trace:
    rng = np.random.default_rng(seed)
    level = np.log(0.2 if method == "targets-125" else 600.0)
    norms = np.exp(np.outer(level + 0.4 * rng.standard_normal(STEPS), [0.5, -0.5]))
    metadata: dict[str, Any] = {"data": {"steps_per_epoch": 70}}
    if method != "gaba":
        given = [0.0476, 0.9524] if method == "constant-saturated" else [0.5, 0.5]
        metadata["balancer"] = "gradnorm" if method == "gradnorm" else "fixed"
        return Trace.from_arrays(norms, weights=np.tile(given, (STEPS, 1)), metadata=metadata)
    norms[:100] = np.nan
    done = replay(GabaSpec(), norms)
    return Trace.from_arrays(
        norms,
        raw=done.raw,
        ema=done.ema,
        weights=done.weights,
        metadata={**metadata, "balancer": "gaba", "spec": GabaSpec().to_dict()},
    )


def write_campaign(folder: Path, *, gain: float = 0.0, seeds: tuple[int, ...] = (42, 123)) -> Path:
    """A made-up campaign; ``gain`` is how many cycles GABA is better than the constant."""
    (folder / "traces").mkdir(parents=True)
    rows = []
    for subset, base in (("FD001", 14.0), ("FD002", 17.0)):
        for method in ("fixed", "gaba", "gradnorm", "constant-saturated", "targets-125"):
            for seed in seeds:
                run = f"{subset}-{method}-seed{seed}"
                lost = method == "gradnorm" and (subset, seed) == ("FD002", 123)
                score = base + 0.01 * (seed % 7) - (gain if method == "gaba" else 0.0)
                score += np.random.default_rng(sum(map(ord, run))).normal(0.0, 0.1)
                name = f"traces/{run}.parquet"
                if not lost:
                    write_parquet(trace_of(method, seed), folder / name)
                row = dict.fromkeys(METRICS, None if lost else score)
                row |= {key: None if lost else 20 * score for key in METRICS if "nasa" in key}
                rows.append(
                    {
                        "run": run,
                        "subset": subset,
                        "method": method,
                        "seed": seed,
                        "balancer": "gaba" if method == "gaba" else "fixed",
                        "status": "diverged" if lost else "finished",
                        "reason": None,
                        "epochs": 10,
                        "parameters": 76709,
                        "seconds": 60.0,
                        "device": "cpu",
                        "torch": "2.13.0",
                        "gabactl": "0.1.0",
                        "platform": "Linux",
                        "commit": "abc",
                        "command": "gabactl cmapss campaign run",
                        "started": "2026-11-22T03:00:00+00:00",
                        "trace": None if lost else name,
                        **row,
                    }
                )
    pq.write_table(pa.Table.from_pylist(rows), folder / "results.parquet")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_campaign(tmp_path_factory.mktemp("campaign") / "results")


@pytest.fixture(scope="module")
def found(folder: Path) -> Any:
    return read_campaign(folder)


@pytest.fixture(scope="module")
def script() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "simulations")
        return importlib.import_module("what_we_found")


def test_figures_of_runs(found: Any) -> None:
    (gaba, *_) = found.figures("gaba")
    assert gaba.weight_rul == pytest.approx(0.05 / 1.05, abs=4e-4)
    assert gaba.first_saturated_step == pytest.approx(331, abs=4)
    # The floor leaves m (1 + R): about 30 to 1 at 600x.
    assert gaba.contributions == pytest.approx(0.05 * 601, rel=0.1)
    (fixed, *_) = found.figures("fixed")
    assert fixed.ratio_median == pytest.approx(600, rel=0.1)
    assert fixed.contributions == pytest.approx(600, rel=0.1)
    assert np.isnan(fixed.ema_health)
    assert len(found.runs) == 19


def test_runs_without_a_score_are_left_out_of_pairs(found: Any) -> None:
    assert found.versus("rmse_capped", "gaba", "fixed").difference.n == 4
    assert found.versus("rmse_capped", "gaba", "gradnorm").difference.n == 3
    assert found.versus("rmse_capped", "gaba", "nothing") is None
    assert found.mean("rmse_capped", "gradnorm", "FD002").n == 1
    table, blocks = found.complete("rmse_capped", ["fixed", "gaba", "gradnorm"])
    assert table.shape == (3, 3)
    assert ("FD002", 123) not in blocks


def test_records_are_readable_and_a_reduced_campaign_decides_no_published_score(
    found: Any, monkeypatch: Any
) -> None:
    made = campaign_records(found, None)
    kept = tuple(read_record(json.dumps(record), claim) for claim, record in made.items())
    monkeypatch.setattr(record_module, "records", lambda: kept)
    verdicts = {claim.id: from_records(claim).verdict for claim in ledger() if claim.id in made}
    assert verdicts["C26"] == verdicts["C27"] == verdicts["C43"] == "reproduced"
    assert verdicts["C25"] == "not_reproduced"
    assert verdicts["C38"] == "reproduced"
    assert verdicts["C40"] == verdicts["C41"] == verdicts["C42"] == "not_run"
    by_id = {claim.id: claim for claim in ledger()}
    c40 = from_records(by_id["C40"])
    assert "was not trained" in c40.reason
    assert any(f.what == "gaba rmse" and f.agrees is None for f in c40.findings)
    assert "FD004 was not trained" in from_records(by_id["C41"]).reason
    # What was published, on the published protocol, would decide.
    full = {**made["C40"], "values": {**made["C40"]["values"], "gaba_rmse": 7.6, "gaba_nasa": 220}}
    full.pop("decides")
    monkeypatch.setattr(record_module, "records", lambda: (read_record(json.dumps(full), "full"),))
    assert from_records(by_id["C40"]).verdict == "reproduced"


def test_ten_blocks_decide_on_significance(tmp_path: Path) -> None:
    many = write_campaign(tmp_path / "many", seeds=(42, 7, 456, 789, 1024))
    record = campaign_records(read_campaign(many), None)["C42"]
    assert "decides" not in record
    assert record["values"]["blocks"] == 10


def test_a_record_that_does_not_decide_needs_a_reason() -> None:
    base = {
        "claim": "C40",
        "values": {},
        "provenance": {"command": "x", "date": "x", "device": "x", "versions": "x"},
    }
    assert read_record(json.dumps({**base, "decides": False, "reason": "small"}), "a").reason
    for wrong in ({"decides": False}, {"decides": "no", "reason": "x"}):
        with pytest.raises(InputError, match="decides"):
            read_record(json.dumps({**base, **wrong}), "a.json")


@pytest.mark.parametrize(
    ("computed", "recorded", "verdict"),
    [
        ("reproduced", "reproduced", "reproduced"),
        ("reproduced", "not_reproduced", "not_reproduced"),
        ("refuted", "reproduced", "refuted"),
        ("not_run", "reproduced", "reproduced"),
        ("reproduced", "not_run", "reproduced"),
    ],
)
def test_a_campaign_beside_a_computation(
    monkeypatch: Any, computed: Any, recorded: Any, verdict: str
) -> None:
    claim = dataclasses.replace(next(c for c in ledger() if c.id == "C27"), parts=())
    beside = Evidence(recorded, (Finding("median", "", "600"),))
    module = sys.modules["gabactl.claims.check"]
    monkeypatch.setattr(module, "from_records", lambda _: beside)
    assert _settle(claim, None, Evidence(computed)).verdict == verdict


def test_a_damaged_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gabactl cmapss campaign run"):
        read_campaign(tmp_path)
    (tmp_path / "results.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read"):
        read_campaign(tmp_path)
    pq.write_table(pa.table({"run": ["a"]}), tmp_path / "results.parquet")
    with pytest.raises(InputError, match="no column 'subset'"):
        read_campaign(tmp_path)


def test_sentences_follow_the_numbers(script: Any, tmp_path: Path, found: Any) -> None:
    same = script.beats(found, "constant-saturated", "The constant")
    assert "not shown to beat it" in same
    better = read_campaign(write_campaign(tmp_path / "better", gain=2.0))
    assert "GABA is better" in script.beats(better, "constant-saturated", "The constant")
    worse = read_campaign(write_campaign(tmp_path / "worse", gain=-2.0))
    assert "it is worse" in script.beats(worse, "constant-saturated", "The constant")
    assert "**was not reached**" in script.reached(found)
    lucky = read_campaign(write_campaign(tmp_path / "lucky", gain=10.0))
    assert "**was reached**" in script.reached(lucky)
    assert "above the usual" in script.usual(lucky) or "in the usual" in script.usual(lucky)
    assert "1 of 4 runs ended in NaN" in script.gradnorm_words(found, None)


@pytest.mark.slow
def test_the_page_is_written_and_found_stale(
    script: Any, folder: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    real = script.predict
    monkeypatch.setattr(script, "settle_claims", lambda ids: check_claims(["C35"]))
    monkeypatch.setattr(script, "predict", lambda *a, **k: real(*a, **k, draws=20))
    (tmp_path / "records").mkdir()
    places = script.Places(
        campaign=folder,
        toys=tmp_path / "none.json",
        records=tmp_path / "records",
        page=tmp_path / "page.md",
        pictures=tmp_path / "pictures",
        summary=tmp_path / "summary.json",
    )
    assert script.main(["--check"], places) == 1
    assert script.main([], places) == 0
    assert script.main(["--check"], places) == 0
    text = places.page.read_text(encoding="utf-8")
    assert "nan" not in text.replace("NaN", "").lower().split()
    assert text.count("\n10. ") == 1
    for name in script.PICTURES:
        assert (places.pictures / f"{name}.png").stat().st_size > 5_000
        assert f"_static/what-we-found/{name}.png" in text
    assert not re.search(r"\{\{|\{%|undefined", text)
    kept = json.loads(places.summary.read_text(encoding="utf-8"))
    assert kept["friedman"]["rmse_capped"]["blocks"] == 3
    (places.records / "C26-campaign.json").write_text("{}")
    capsys.readouterr()
    assert script.main(["--check"], places) == 1
    assert "C26-campaign.json" in capsys.readouterr().err


def test_what_is_committed_is_current(script: Any) -> None:
    places = script.default_places()
    if not (places.campaign / "results.parquet").is_file():
        pytest.skip("no campaign is committed")
    assert script.stale(places) == [], "run python simulations/what_we_found.py"
