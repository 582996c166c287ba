"""Claims settled by arithmetic on the stage functions: schemes, norms and targets side by side."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gabactl.claims.evidence import Evidence, Finding, judged, near
from gabactl.law.stages import raw_weights

Floats = NDArray[np.float64]

#: Norms of the published comparison of schemes.
_NORMS = np.array([5.0, 0.01])


def _ratio(weights: Floats) -> float:
    c = weights * _NORMS
    return float(c[0] / c[1])


def schemes() -> Evidence:
    """C08: contribution ratios left by uniform, inverse square root and GABA weights."""
    root = 1.0 / np.sqrt(_NORMS)
    root /= root.sum()
    rows = (
        ("uniform", np.array([0.5, 0.5]), 500.0),
        ("inverse square root", root, 22.36),
        ("GABA", raw_weights(_NORMS), 1.0),
    )
    return judged(
        [
            near(f"contribution ratio, {name}", claimed, _ratio(w), 0.005, "{:.2f}x")
            for name, w, claimed in rows
        ]
    )


def norms_two_ways() -> Evidence:
    """C31: sum of squares over the parts equals the norm of the concatenation."""
    # The published figures are of NumPy's legacy generator.
    state = np.random.RandomState(1)
    shapes = ((3, 4), (3,), (2, 3), (2,))
    findings = []
    for scale, claimed in ((5.0, 26.401602), (0.01, 0.0378326)):
        parts = [state.standard_normal(shape) * scale for shape in shapes]
        squares = float(np.sqrt(sum(float((p**2).sum()) for p in parts)))
        joined = float(np.linalg.norm(np.concatenate([p.ravel() for p in parts])))
        findings += [
            Finding("norm", f"{claimed:g}", f"{squares:.8g}", abs(squares / claimed - 1) < 2e-6),
            Finding(
                "the two ways differ by",
                "0",
                f"{abs(squares - joined):.1e}",
                abs(squares - joined) <= 4 * np.spacing(joined),
            ),
        ]
    return judged(findings)


def gradnorm_targets() -> Evidence:
    """C35: weights for equal progress, a lagging and a fast health task."""
    initial, alpha = np.array([20.0, 2.0]), 1.5
    gaba = float(raw_weights(_NORMS)[0])
    findings = []
    for name, losses, claimed in (
        ("equal progress", (10.0, 1.0), 0.001996),
        ("health lagging", (5.0, 1.5), 0.000385),
        ("health fast", (10.0, 0.5), 0.005625),
    ):
        target = _NORMS.mean() * (np.array(losses) / (initial + 1e-8)) ** alpha
        weights = target / _NORMS
        ours = float(weights[0] / weights.sum())
        findings.append(near(f"GradNorm, {name}", claimed, ours, 1e-6, "{:.6f}"))
    return judged([*findings, near("GABA, all three", 0.001996, gaba, 1e-6, "{:.6f}")])


CHECKS = (schemes, norms_two_ways, gradnorm_targets)
