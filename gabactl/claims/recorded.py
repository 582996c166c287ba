"""Claims settled on recorded training: replays of the bundled traces under published settings."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gabactl.claims.evidence import ClaimVerdict, Evidence, Finding, judged
from gabactl.law.spec import GabaSpec
from gabactl.runs.run import Run

Floats = NDArray[np.float64]

#: Equilibria are compared within this, as the literature does.
_SAME = 0.008


def _traces(excited: bool = False) -> dict[str, Any]:
    from gabactl.traces import bundled, load_bundled

    if excited:
        return {name: load_bundled(name) for name in bundled() if "-excited-" in name}
    return {name: load_bundled(name) for name in bundled() if name.endswith(("-equal", "-gaba"))}


def _equal() -> dict[str, Any]:
    return {name: trace for name, trace in _traces().items() if name.endswith("equal")}


def _every_ratio(trace: Any) -> Floats:
    norms = np.asarray(trace.grad_norms, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(norms[:, 0] / norms[:, 1])


def _ratio(trace: Any) -> Floats:
    """g_RUL/g_health where both were measured."""
    ratio = _every_ratio(trace)
    return ratio[np.isfinite(ratio) & (ratio > 0)]


def _last_quarter(values: Floats) -> Floats:
    return values[-max(len(values) // 4, 1) :]


def _settled(weights: Floats) -> float:
    return float(np.median(_last_quarter(weights)))


def _apart(settled: list[float]) -> Finding:
    spread = max(settled) - min(settled)
    return Finding("largest difference", f"within {_SAME}", f"{spread:.5f}", spread <= _SAME)


_NO_TRACE = "no trace is bundled with this copy"


def _none(why: str = _NO_TRACE) -> Evidence:
    return Evidence("not_run", reason=why)


def _judged(
    findings: list[Finding], why: str = _NO_TRACE, bad: ClaimVerdict = "not_reproduced"
) -> Evidence:
    return judged(findings, bad=bad) if findings else _none(why)


def settled_average() -> Evidence:
    """C24: where the stored health weight settles."""
    spec = GabaSpec.published()
    findings = []
    for name, trace in _traces().items():
        done = Run(trace, spec).replay
        stored = _settled(done.ema[:, 1])
        applied = float(done.weights[:, 1].max())
        findings.append(
            Finding(
                f"settled stored weight, {name}",
                "0.995 +- 0.001",
                f"{stored:.4f} (applied: at most {applied:.6f})",
                abs(stored - 0.995) <= 0.001,
            )
        )
    return _judged(findings)


def residual_contributions() -> Evidence:
    """C25: contribution ratio left by the published controller around 500x."""
    findings = []
    for name, trace in _traces().items():
        done = Run(trace, GabaSpec.published()).replay
        ratio = _every_ratio(trace)
        settled = np.arange(len(ratio)) > len(ratio) // 2
        regime = settled & (ratio > 250) & (ratio < 1000)
        if regime.sum() < 50:
            continue
        left = ratio[regime] * done.weights[regime, 0] / done.weights[regime, 1]
        median = float(np.median(left))
        findings.append(
            Finding(
                f"c_RUL/c_health at 250x to 1,000x, {name} ({int(regime.sum())} steps)",
                "1x",
                f"{median:.1f}x",
                0.5 < median < 2.0,
            )
        )
    why = "no bundled trace has 50 settled steps between 250x and 1,000x"
    return _judged(findings, why, bad="refuted")


def same_equilibrium() -> Evidence:
    """C26: settled applied weights over runs, and when the floor is reached."""
    runs = _traces()
    if len(runs) < 2:
        return _none("it takes two recorded runs")
    spec = GabaSpec.published()
    settled, findings = [], []
    for name, trace in runs.items():
        done = Run(trace, spec).replay
        settled.append(_settled(done.weights[:, 0]))
        low = done.ema[:, 0] < spec.floor
        first = int(done.step[np.argmax(low)]) if low.any() else None
        stays = bool(low[np.argmax(low) :].all()) if low.any() else False
        reached = (
            f"saturated from step {first}{', for good' if stays else ''}"
            if first
            else "never saturated"
        )
        findings.append(Finding(f"settled RUL weight, {name}", "", f"{settled[-1]:.5f}, {reached}"))
    return judged([*findings, _apart(settled)])


def ratio_level() -> Evidence:
    """C27: median ratio on the shared backbone."""
    findings = []
    for name, trace in _equal().items():
        ratio = _ratio(trace)
        low, middle, high = np.quantile(ratio, [0.025, 0.5, 0.975])
        findings.append(
            Finding(
                f"median ratio, {name}",
                "about 500x (within a factor 2)",
                f"{middle:.0f}x (95 % of steps {low:.0f}x to {high:.0f}x)",
                250 <= middle <= 1000,
            )
        )
    return _judged(findings)


def ratio_course() -> Evidence:
    """C28: start, peak and end of the ratio, by epoch."""
    findings = []
    for name, trace in _equal().items():
        ratio = _ratio(trace)
        per_epoch = int((trace.metadata.get("data") or {}).get("steps_per_epoch") or 100)
        epochs = [
            float(np.median(ratio[k : k + per_epoch]))
            for k in range(0, len(ratio) - per_epoch + 1, per_epoch)
        ]
        start = float(np.median(ratio[:5]))
        peak = int(np.argmax(epochs))
        end = float(np.median(epochs[-max(len(epochs) // 4, 1) :]))
        findings += [
            Finding(f"{name}: first 5 steps", "near 50x", f"{start:.0f}x", 25 <= start <= 100),
            Finding(
                f"{name}: highest epoch median",
                "near 2,400x around epoch 4",
                f"{epochs[peak]:.0f}x in epoch {peak + 1}",
                1200 <= epochs[peak] <= 4800 and 2 <= peak + 1 <= 8,
            ),
            Finding(f"{name}: last quarter", "500x to 1,000x", f"{end:.0f}x", 500 <= end <= 1000),
        ]
    return _judged(findings)


def without_warm_up() -> Evidence:
    """C39: the first 100 steps with W = 0: how far the weights turn back on their way."""
    findings = []
    for name, trace in _traces().items():
        if not trace.measured[:100].all():
            continue
        weights = Run(trace, GabaSpec.published(warmup=0)).replay.weights[:100, 0]
        lowest = np.minimum.accumulate(weights)
        back = float((weights - lowest).max())
        findings.append(
            Finding(
                f"largest return of the RUL weight, W = 0, {name}",
                "oscillates (returns by more than 0.05)",
                f"{back:.4f} (falls from {weights[0]:.3f} to {weights[-1]:.3f})",
                back > 0.05,
            )
        )
    return _judged(findings, "no bundled trace was measured in its first 100 steps")


def over_subsets() -> Evidence:
    """C43: published settings on every recorded subset."""
    by_subset: dict[str, list[float]] = {}
    for trace in _traces().values():
        subset = str((trace.metadata.get("data") or {}).get("subset", "unknown"))
        done = Run(trace, GabaSpec.published()).replay
        by_subset.setdefault(subset, []).append(_settled(done.weights[:, 0]))
    if len(by_subset) < 2:
        return _none("it takes recorded runs on two subsets")
    findings = [
        Finding(f"settled RUL weight, {subset}", "", ", ".join(f"{v:.5f}" for v in values))
        for subset, values in sorted(by_subset.items())
    ]
    values = [v for group in by_subset.values() for v in group]
    absent = sorted({"FD001", "FD002", "FD003", "FD004"} - set(by_subset))
    if absent:
        findings.append(Finding("subsets not recorded", "", ", ".join(absent)))
    return judged([*findings, _apart(values)])


def identified_sign() -> Evidence:
    """C22: the sign of the plant, identified from excited twins."""
    from gabactl.identification import identify_paired

    runs = _traces(excited=True)
    pairs = [(run, f"{run}-inverted") for run in runs if f"{run}-inverted" in runs]
    if not pairs:
        return _none("no excited trace is bundled with this copy")
    findings = []
    for run, twin in pairs:
        found = identify_paired(runs[run], runs[twin], draws=199)
        low, high = found.rho_interval
        findings.append(
            Finding(
                f"rho, {run}",
                "negative feedback: rho < 0",
                f"{found.rho:.3f}, interval {low:.3f} to {high:.3f} ({found.sign})",
            )
        )
    return Evidence("unknown", tuple(findings))


CHECKS = (
    settled_average,
    residual_contributions,
    same_equilibrium,
    ratio_level,
    ratio_course,
    without_warm_up,
    over_subsets,
    identified_sign,
)
