"""Write what the campaign found: records of the ledger, pictures, and the page docs/what-we-found.md.

    python simulations/what_we_found.py             # write everything anew
    python simulations/what_we_found.py --check     # say whether what is there is current (exit 1: not)

reads simulations/results/campaign/ (results.parquet and traces/), the bundled traces and
simulations/results/gradnorm_divergence.json. Nothing on the page is typed in by hand: sentences
are chosen by the numbers, so another campaign makes another page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from campaign_claims import (
    METRICS,
    CampaignFigures,
    campaign_records,
    read_campaign,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from run_statistics import PairedDifference
from what_we_found_pictures import PICTURES, PUBLISHED, USUAL

from gabactl.base import plots
from gabactl.base.files import write_text
from gabactl.base.results import to_jsonable
from gabactl.claims import settle_claims
from gabactl.identification import identify_paired
from gabactl.plants import LogRatio
from gabactl.traces import load_bundled
from gabactl.validation.check import check
from gabactl.validation.prediction import Prediction, predict

ROOT = Path(__file__).resolve().parent.parent
ANSWERS = (
    *("C22", "C24", "C25", "C26", "C27", "C28", "C30", "C32"),
    *(f"C{n}" for n in range(36, 44)),
)
TWINS = ("fd001-excited-adamw-w005-seed0", "fd001-excited-adamw-w005-seed0-inverted")
RECORD = "campaign"


@dataclass(frozen=True)
class Places:
    """Where things are read and written."""

    campaign: Path
    toys: Path
    records: Path
    page: Path
    pictures: Path
    summary: Path


def default_places(root: Path = ROOT) -> Places:
    """Those of the repository."""
    return Places(
        campaign=root / "simulations" / "results" / "campaign",
        toys=root / "simulations" / "results" / "gradnorm_divergence.json",
        records=root / "gabactl" / "claims" / "records",
        page=root / "docs" / "what-we-found.md",
        pictures=root / "docs" / "_static" / "what-we-found",
        summary=root / "simulations" / "results" / "what_we_found.json",
    )


# Words.


def span(values: list[float], digits: int = 2) -> str:
    """``a`` or ``a to b``."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return "none"
    low, high = f"{min(finite):,.{digits}f}", f"{max(finite):,.{digits}f}"
    return low if low == high else f"{low} to {high}"


def mean_of(found: CampaignFigures, metric: str, method: str, subset: str) -> str:
    """Mean and range over the seeds, for a table."""
    mean = found.mean(metric, method, subset)
    if mean is None:
        return "-"
    digits = 2 if metric.startswith("rmse") else 0
    if mean.n == 1:
        return f"{mean.mean:,.{digits}f} (one run)"
    return f"{mean.mean:,.{digits}f} [{mean.low:,.{digits}f}, {mean.high:,.{digits}f}]"


def interval(difference: PairedDifference, *, ratio: bool = False, short: bool = False) -> str:
    """Mean difference with both intervals (short: Student's), or as a change in per cent."""
    d, s = difference.difference, difference.student

    def show(value: float) -> str:
        return f"{100 * math.expm1(min(value, 20.0)):+,.0f} %" if ratio else f"{value:+.2f}"

    if short:
        return f"{show(d.mean)} [{show(s.low)}, {show(s.high)}]"
    return (
        f"{show(d.mean)} (bootstrap [{show(d.low)}, {show(d.high)}], "
        f"Student [{show(s.low)}, {show(s.high)}], {d.n} pairs)"
    )


def beats(found: CampaignFigures, control: str, words: str) -> str:
    """Whether GABA beats a control, in a sentence."""
    rmse = found.versus("rmse_capped", "gaba", control)
    nasa = found.versus("nasa_capped", "gaba", control, logarithm=True)
    if rmse is None or nasa is None:
        return f"{words}: **not run** on two runs or more, so nothing can be said."
    mean = rmse.difference.mean
    if rmse.decided and mean < 0:
        verdict = "GABA is better than it"
    elif rmse.decided:
        verdict = "**GABA does not beat it: it is worse**"
    else:
        verdict = "**GABA is not shown to beat it**"
    return (
        f"{words}: {verdict}. RMSE of GABA less its RMSE: {interval(rmse, short=True)} cycles, "
        f"lower in {rmse.wins} of {rmse.difference.n} pairs; NASA score {interval(nasa, ratio=True, short=True)}."
    )


def reached(found: CampaignFigures) -> str:
    """Whether 7.53 was reached on FD002, and by how much it was missed."""
    rows = [row for row in found.rows if row["subset"] == "FD002"]
    best = []
    for metric in ("rmse_capped", "rmse_test_selected", "rmse_all_windows", "rmse_uncapped"):
        values = [row[metric] for row in rows if row[metric] is not None]
        if values:
            best.append((min(values), METRICS[metric]))
    if not best:
        return "FD002 was not trained, so whether an RMSE of 7.53 can be reached is open."
    lowest = min(best)
    verdict = "**was reached**" if lowest[0] <= 8.18 else "**was not reached**"
    return (
        f"The published RMSE of 7.53 on FD002 {verdict}: the best of our {len(rows)} runs is "
        + "; ".join(f"{value:.2f} ({words})" for value, words in best)
        + "."
    )


def usual(found: CampaignFigures) -> str:
    """The fixed baseline beside what others report for this kind of network."""
    said = []
    for subset, (low, high) in USUAL.items():
        mean = found.mean("rmse_capped", "fixed", subset)
        if mean is None:
            continue
        if mean.mean < low:
            where = "below"
        elif mean.mean > high:
            where = "above"
        else:
            where = "in"
        said.append(f"{subset} {mean.mean:.2f} ({where} the usual {low:g} to {high:g})")
    return ", ".join(said) or "not run"


def run_words(found: CampaignFigures) -> dict[str, Any]:
    """What was run, what was not, and how long it took."""
    done = [row for row in found.rows if row["status"] in ("finished", "stopped early")]
    diverged = [row["run"] for row in found.rows if row["status"] == "diverged"]
    open_runs = [
        f"{row['run']} ({row['status']})"
        for row in found.rows
        if row["status"] not in ("finished", "stopped early", "diverged")
    ]
    sizes = sorted({int(row["parameters"]) for row in found.rows if row.get("parameters")})
    epochs = sorted({int(row["epochs"]) for row in found.rows if row.get("epochs")})
    devices = sorted({str(row["device"]) for row in found.rows if row.get("device")})
    full = bool(sizes) and max(sizes) > 3_000_000
    not_run = []
    if not full:
        not_run.append("the published network (3,496,900 parameters), which takes a GPU")
    missing = [s for s in ("FD001", "FD002", "FD003", "FD004") if s not in found.subsets]
    if missing:
        not_run.append(", ".join(missing))
    if len(found.seeds) < 5:
        not_run.append(
            f"five seeds (42, 123, 456, 789, 1024): here {', '.join(map(str, found.seeds))}"
        )
    if epochs and max(epochs) < 100:
        not_run.append(f"up to 500 epochs with early stopping: here {max(epochs)}")
    whole = ("gradnorm-textbook", "amnl", "uncertainty", "dwa", "pcgrad", "cagrad")
    absent = [m for m in whole if m not in found.methods]
    if absent:
        not_run.append(f"the methods {', '.join(absent)}")
    if all("cuda" not in device for device in devices):
        not_run.append(
            "anything on a GPU, peak memory and step time of C36 and C37 included: not yet "
            "validated on a GPU, for which [one command](gpu.md) is ready"
        )
    return {
        "done": len(done),
        "planned": len(found.rows),
        "diverged": diverged,
        "open": open_runs,
        "parameters": " and ".join(f"{size:,}" for size in sizes),
        "epochs": " and ".join(map(str, epochs)),
        "device": " and ".join(devices).replace("cpu", "a CPU"),
        "minutes": sum(row.get("seconds") or 0.0 for row in found.rows) / 60.0,
        "not_run": not_run,
    }


def gradnorm_words(found: CampaignFigures, toys: dict[str, Any] | None) -> str:
    """How GradNorm fared."""
    rows = [r for r in found.rows if r["method"] == "gradnorm" and r["status"] != "not_run"]
    negative = sum(run.least_weight < 0 for run in found.figures("gradnorm"))
    diverged = sum(row["status"] == "diverged" for row in rows)
    scores = [row["rmse_capped"] for row in rows if row["rmse_capped"] is not None]
    said = [
        f"GradNorm (chen2018, learning rate 0.025): {diverged} of {len(rows)} runs ended in NaN, "
        f"{negative} had a negative weight"
        + (f"; RMSE {span(scores)} cycles" if scores else "")
        + (
            " (about that of a network which answers 0 for every engine)"
            if scores and min(scores) > 40
            else ""
        )
    ]
    if toys:
        for name in ("gradnorm", "gaba"):
            of = [row for row in toys["rows"] if row["method"].split()[0] == name]
            said.append(
                f"{'GradNorm' if name == 'gradnorm' else 'GABA'} on the 1,008-parameter toy: NaN in "
                f"{sum(r['not_finite'] for r in of)} of {sum(r['runs'] for r in of)} runs"
            )
    return "; ".join(said) + "."


def measured_words(predictions: dict[str, Prediction]) -> dict[str, Any]:
    """The theory's score over all runs of the published controller."""

    def count(key: str) -> str:
        judged = [
            item.agrees
            for p in predictions.values()
            for item in p.comparisons
            if item.key == key and item.agrees is not None
        ]
        return f"{sum(judged)} of {len(judged)}" if judged else "none judged"

    scores = [score for p in predictions.values() for score in p.forecasts]

    def won(signal: str, attribute: str) -> str:
        of = [getattr(s, attribute) for s in scores if s.signal == signal]
        return f"{sum(v is True for v in of)} of {len(of)}"

    def lost(signal: str, attribute: str) -> int:
        return sum(getattr(s, attribute) is False for s in scores if s.signal == signal)

    def typical(key: str) -> str:
        of = [
            item.measured / item.predicted
            for p in predictions.values()
            for item in p.comparisons
            if item.key == key and item.measured is not None and item.predicted
        ]
        return f"{np.median(of):.3f} [{min(of):.3f}, {max(of):.3f}]" if of else "-"

    return {
        "count": count,
        "won": won,
        "lost": lost,
        "typical": typical,
        "keys": {item.key: item.what for p in predictions.values() for item in p.comparisons},
    }


# Everything together.


def digest_of(found: CampaignFigures, toys: Path) -> str:
    """What the page was made from: the campaign, the toys, and the scripts."""
    digest = hashlib.sha256(found.digest.encode())
    if toys.is_file():
        digest.update(toys.read_bytes())
    for name in ("what_we_found.py", "what_we_found_pictures.py", "what_we_found.md.j2"):
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()


def read_toys(path: Path) -> dict[str, Any] | None:
    """The divergence study, where it was run."""
    if not path.is_file():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def record_texts(found: CampaignFigures, toys: dict[str, Any] | None) -> dict[str, str]:
    """File name and text of every record."""
    return {
        f"{claim}-{RECORD}.json": json.dumps(record, indent=2, allow_nan=False) + "\n"
        for claim, record in campaign_records(found, toys).items()
    }


def write(places: Places) -> None:
    """Write records, pictures and page."""
    found = read_campaign(places.campaign)
    toys = read_toys(places.toys)
    for name, text in record_texts(found, toys).items():
        write_text(places.records / name, text)
    places.pictures.mkdir(parents=True, exist_ok=True)
    with plots.style():
        for name, draw in PICTURES.items():
            plots.save(draw(found), places.pictures / f"{name}.png")
    numbers = summary(found, toys)
    template = Environment(
        loader=FileSystemLoader(str(Path(__file__).parent)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    ).get_template(Path(__file__).with_suffix(".md.j2").name)
    write_text(places.page, template.render(**numbers["page"]))
    kept = {"digest": digest_of(found, places.toys), **numbers["kept"]}
    write_text(places.summary, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    print(f"{places.page.name}, {len(PICTURES)} pictures, {len(ANSWERS)} verdicts")


def summary(found: CampaignFigures, toys: dict[str, Any] | None) -> dict[str, Any]:
    """All numbers: for the page, and those that are kept."""
    twins = identify_paired(*(load_bundled(name) for name in TWINS), draws=199)
    plant = LogRatio(twins.rho, twins.a, twins.delay)
    replays = {run: check(trace) for run, trace in found.traces.items()}
    compared = {k: v for k, v in replays.items() if v.ok is not None}
    predictions = {
        run.run: predict(found.traces[run.run], plant=plant, plant_from=f"bundled {TWINS[0]}")
        for method in ("gaba", "gaba-authority")
        for run in found.figures(method)
    }
    scored = [m for m in found.methods if found.values("rmse_capped", m)]
    rankings = {metric: found.ranking(metric, scored) for metric in ("rmse_capped", "nasa_capped")}
    common = [m for m in ("fixed", "gaba", "gradnorm", "grace") if m in scored]
    published_rankings = {
        metric: found.ranking(metric, common) for metric in ("rmse_capped", "nasa_capped")
    }
    verdicts = settle_claims(ANSWERS).results
    worst = max(
        (
            max(v.max_abs_error_ema or 0.0, v.max_abs_error_weights or 0.0)
            for v in compared.values()
        ),
        default=math.nan,
    )
    differences = [
        (method, rmse, nasa)
        for method in found.methods
        if method != "gaba"
        and (rmse := found.versus("rmse_capped", "gaba", method))
        and (nasa := found.versus("nasa_capped", "gaba", method, logarithm=True))
    ]
    page = {
        "differences": differences,
        "found": found,
        "runs": run_words(found),
        "usual": usual(found),
        "reached": reached(found),
        "constant": beats(found, "constant-saturated", "A constant 0.0476 / 0.9524 from step 0"),
        "targets": beats(found, "targets-125", "Equal weights on targets divided by 125"),
        "fixed": beats(found, "fixed", "Equal weights on raw targets"),
        "gradnorm": gradnorm_words(found, toys),
        "gaba": found.figures("gaba"),
        "equal": found.figures("fixed"),
        "scaled": found.figures("targets-125"),
        "authority": found.figures("gaba-authority"),
        "toys": toys,
        "metrics": METRICS,
        "published": PUBLISHED,
        "mean_of": mean_of,
        "span": span,
        "interval": interval,
        "rankings": rankings,
        "published_rankings": published_rankings,
        "common": common,
        "verdicts": verdicts,
        "twins": twins,
        "predictions": predictions,
        "measured": measured_words(predictions),
        "compared": len(compared),
        "worst": worst,
        "nan": math.nan,
    }
    kept = {
        "runs": [dict(vars(run)) for run in found.runs],
        "scores": {
            f"{method} {subset} {metric}": mean.to_dict()
            for method in found.methods
            for subset in found.subsets
            for metric in METRICS
            if (mean := found.mean(metric, method, subset)) is not None
        },
        "differences_from_gaba": {
            f"{method} {metric}": made.to_dict()
            for method in found.methods
            for metric in ("rmse_capped", "nasa_capped")
            if method != "gaba"
            and (made := found.versus(metric, method, "gaba", logarithm="nasa" in metric))
        },
        "friedman": {k: v[0].to_dict() for k, v in rankings.items() if v},
        "nemenyi": {k: v[1].to_dict() for k, v in rankings.items() if v},
        "predictions": {run: p.to_dict() for run, p in predictions.items()},
        "largest_replay_error": worst,
        "verdicts": {r.claim.id: r.evidence.verdict for r in verdicts},
    }
    return {"page": page, "kept": to_jsonable(kept)}


def stale(places: Places) -> list[str]:
    """What is not current; empty where everything is."""
    found = read_campaign(places.campaign)
    wrong = []
    for name, text in record_texts(found, read_toys(places.toys)).items():
        file = places.records / name
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            wrong.append(str(file))
    for name in PICTURES:
        if not (places.pictures / f"{name}.png").is_file():
            wrong.append(f"{name}.png")
    kept = json.loads(places.summary.read_text("utf-8")) if places.summary.is_file() else {}
    if kept.get("digest") != digest_of(found, places.toys) or not places.page.is_file():
        wrong.append(str(places.page))
    return wrong


def main(arguments: list[str] | None = None, places: Places | None = None) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="say whether all of it is current")
    parser.add_argument("--campaign", type=Path, help="another folder with results.parquet")
    chosen = parser.parse_args(arguments)
    places = places or default_places()
    if chosen.campaign:
        places = Places(**{**vars(places), "campaign": chosen.campaign})
    if chosen.check:
        wrong = stale(places)
        for name in wrong:
            print(f"not current: {name}", file=sys.stderr)
        return 1 if wrong else 0
    write(places)
    return 0


if __name__ == "__main__":
    sys.exit(main())
