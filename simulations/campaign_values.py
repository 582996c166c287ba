"""What a campaign says of single claims: figures, whether they decide, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from campaign_claims import CampaignFigures

__all__ = [
    "controls",
    "diverged",
    "extremes",
    "is_published_protocol",
    "models_of",
    "provenance_of",
    "significance",
]

#: Two subsets and five seeds.
_ENOUGH_BLOCKS = 10
_PROVENANCE = ("device", "torch", "gabactl", "platform", "started", "commit", "command")


def controls(found: CampaignFigures) -> tuple[dict[str, float], str]:
    """GABA against the controls, over all subsets: figures, and whether it beats them."""
    values: dict[str, float] = {}
    said = []
    for control, words in (
        ("constant-saturated", "the constant 0.0476/0.9524"),
        ("targets-125", "equal weights on targets/125"),
        ("fixed", "equal weights"),
    ):
        difference = found.versus("rmse_capped", "gaba", control)
        if difference is None:
            continue
        student = difference.student
        name = f"gaba_less_{control.replace('-', '_')}_rmse"
        values |= {name: student.mean, f"{name}_low": student.low, f"{name}_high": student.high}
        beats = "beats" if difference.decided and student.mean < 0 else "is not shown to beat"
        said.append(
            f"GABA {beats} {words} (RMSE {student.mean:+.2f} [{student.low:+.2f}, "
            f"{student.high:+.2f}], lower in {difference.wins} of {difference.difference.n} pairs)"
        )
    return values, "".join(f"; {text}" for text in said)


def models_of(found: CampaignFigures) -> str:
    """The sizes of the networks, in words."""
    sizes = sorted({int(row["parameters"]) for row in found.rows if row.get("parameters")})
    return " and ".join(f"a network of {size:,} parameters" for size in sizes) or "unknown network"


def is_published_protocol(found: CampaignFigures, subset: str) -> bool:
    """Whether the subset was trained with the full network and at least five seeds."""
    rows = [row for row in found.rows if row["subset"] == subset and row.get("parameters")]
    seeds = {row["seed"] for row in rows if int(row["parameters"]) > 3_000_000}
    return len(seeds) >= 5


def provenance_of(found: CampaignFigures) -> dict[str, str]:
    """Where, when and with what the campaign was run."""
    said = {
        key: sorted({str(row[key]) for row in found.rows if row.get(key)}) for key in _PROVENANCE
    }
    versions = [f"{k} {' and '.join(said[k])}" for k in ("gabactl", "torch") if said[k]]
    return {
        "command": "gabactl cmapss campaign run simulations/cmapss_campaign_reduced.toml, "
        "then python simulations/what_we_found.py",
        "date": said["started"][0][:10] if said["started"] else "unknown",
        "device": " and ".join(said["device"]) or "unknown",
        "versions": ", ".join(versions) or "unknown",
        "platform": " and ".join(said["platform"]) or "unknown",
        "commit": " and ".join(said["commit"]) or "unknown",
    }


def extremes(name: str, values: Sequence[float]) -> dict[str, float]:
    """The lowest and the highest of the finite values, under the keys of a record."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return {}
    return {f"{name}_lowest": min(finite), f"{name}_highest": max(finite)}


def diverged(found: CampaignFigures, toys: dict[str, Any] | None) -> dict[str, float]:
    """C38. How many runs ended in NaN, in the campaign and in the study of toys."""

    def of(method: str) -> tuple[int, int]:
        rows = [r for r in found.rows if r["method"] == method and r["status"] != "not_run"]
        return sum(row["status"] == "diverged" for row in rows), len(rows)

    gradnorm, gaba = of("gradnorm"), of("gaba")
    scores = list(found.values("rmse_capped", "gradnorm").values())
    values: dict[str, float] = {
        "campaign_gradnorm_diverged": gradnorm[0],
        "campaign_gradnorm_runs": gradnorm[1],
        "campaign_gaba_diverged": gaba[0],
        "campaign_gaba_runs": gaba[1],
        "campaign_gradnorm_runs_with_a_negative_weight": sum(
            run.least_weight < 0 for run in found.figures("gradnorm")
        ),
    }
    if scores:
        values["campaign_gradnorm_least_rmse"] = min(scores)
    for row in (toys or {}).get("rows", ()):
        name = "gaba" if row["method"] == "gaba" else row["method"].split()[0]
        if name in ("gaba", "gradnorm"):
            for key, count in (("diverged", row["not_finite"]), ("runs", row["runs"])):
                values[f"toy_{name}_{key}"] = values.get(f"toy_{name}_{key}", 0) + count
    for name in ("gradnorm", "gaba"):
        values[f"{name}_diverged_runs"] = values[f"campaign_{name}_diverged"] + values.get(
            f"toy_{name}_diverged", 0
        )
    return values


def significance(found: CampaignFigures, record: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """C42. Few blocks decide nothing: they cannot show that a difference is absent."""
    methods = [m for m in ("fixed", "gaba", "gradnorm", "grace") if found.values("rmse_capped", m)]
    values: dict[str, float] = {}
    blocks = 0
    for chosen, words in ((methods, ""), ([m for m in methods if m != "gradnorm"], "_no_gradnorm")):
        for metric, short in (("rmse_capped", "rmse"), ("nasa_capped", "nasa")):
            ranking = found.ranking(metric, chosen)
            if ranking is None:
                continue
            values[f"friedman_p_{short}{words}"] = ranking[0].permutation_p_value
            values[f"friedman_chi2_p_{short}{words}"] = ranking[0].p_value
            if not words:
                blocks = ranking[0].blocks
    if not blocks:
        return record("C42", {}, "too few finished runs for a Friedman test")
    values |= {"blocks": blocks, "methods": len(methods)}
    if blocks >= _ENOUGH_BLOCKS:
        return record("C42", values)
    return record(
        "C42",
        values,
        f"not the published protocol, and {blocks} blocks (subset and seed) are few. Of "
        f"{', '.join(methods)} the test gives p = {values['friedman_p_rmse']:.2g} for RMSE and "
        f"{values['friedman_p_nasa']:.2g} for NASA; without GradNorm "
        f"{values.get('friedman_p_rmse_no_gradnorm', math.nan):.2g} and "
        f"{values.get('friedman_p_nasa_no_gradnorm', math.nan):.2g}",
    )
