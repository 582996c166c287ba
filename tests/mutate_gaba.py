"""Break GABALoss in one place after another, and expect the tests to notice each.

Each mutation is a textual change to a copy of the package; the pinned tests
(tests/nn/test_gaba.py) then run against the copy and must fail. Run it as
``python tests/mutate_gaba.py``; exit code 1 when a mutant survives.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests/nn/test_gaba.py", "-k", "not TestAgreement"]

#: name: (file, what is there, what the mutant has instead)[, and more such places]
MUTATIONS = {
    "warm-up ends a step early": (
        "spec.py",
        "return step > self.warmup",
        "return step >= self.warmup",
    ),
    "warm-up does not gate": (
        "spec.py",
        "return step > self.warmup and (step - self.warmup - 1)",
        "return (step - 1)",
    ),
    "warm-up applies the average": (
        "nn/gaba.py",
        "if self._steps() <= self.spec.warmup:",
        "if False:",
    ),
    "ema is not written back": (
        "nn/gaba.py",
        "        self.ema_weights.copy_(ema)\n",
        "",
    ),
    "weights are not detached": (
        ("nn/sensors/norms.py", "create_graph=False", "create_graph=True"),
        ("nn/gaba.py", "    @torch.no_grad()\n    def _take", "    def _take"),
        ("nn/gaba.py", "self.ema_weights.copy_(ema)", "self.ema_weights.copy_(ema.detach())"),
    ),
    "the floor is left out": ("nn/_stages.py", "ema.clamp_min(spec.floor)", "ema"),
    "the stored ema is clamped": (
        "nn/gaba.py",
        "self.ema_weights.copy_(ema)",
        "self.ema_weights.copy_(ema.clamp_min(spec.floor))",
    ),
    "renormalisation is left out": (
        "nn/_stages.py",
        "return weights / weights.sum()\n    if",
        "return weights\n    if",
    ),
    "floor before ema": (
        "nn/gaba.py",
        "_stages.smooth(self.ema_weights, raw, spec)",
        "_stages.smooth(self.ema_weights, _stages.saturate(raw, spec), spec)",
    ),
    "ema after the floor": (
        "nn/gaba.py",
        "_stages.smooth(self.ema_weights, raw, spec)",
        "_stages.smooth(_stages.saturate(self.ema_weights, spec), raw, spec)",
    ),
    "weights of the step before": (
        ("nn/gaba.py", "return _stages.saturate(ema, spec)", "return old"),
        (
            "nn/gaba.py",
            "        raw = _stages.raw_weights",
            "        old = _stages.saturate(self.ema_weights, spec)\n        raw = _stages.raw_weights",
        ),
    ),
    "K instead of K - 1": ("nn/_stages.py", "((k - 1) * total)", "(k * total)"),
    "K instead of K - 1, guarded": ("nn/_stages.py", "total / (k - 1)", "total / k"),
    "the sign of the law": ("nn/_stages.py", "return (total - g) / ((k", "return g / ((k"),
    "1e-12 is left out": ("nn/_stages.py", "g.sum() + PUBLISHED_EPSILON", "g.sum()"),
    "beta and 1 - beta swapped": (
        "nn/_stages.py",
        "pole * ema + (1.0 - pole) * raw",
        "(1.0 - pole) * ema + pole * raw",
    ),
    "graph is freed by the measurement": (
        "nn/sensors/base.py",
        "compute_task_grad_norm(loss, parameters)",
        "compute_task_grad_norm(loss, parameters, False)",
    ),
    "L1 norm": ("nn/sensors/norms.py", "values.pow(2).sum()", "values.abs().sum()"),
    "half precision squared as it is": ("nn/sensors/norms.py", "values = values.float()", "pass"),
    "hold forgets to hold": ("nn/gaba.py", "ema = torch.where(ok, ema, self.ema_weights)", "pass"),
    "step_count is not advanced": ("nn/base.py", "self.step_count.add_(1)", "pass"),
    "step_count is not watched": (
        "nn/base.py",
        "seen is None or seen[0]",
        "seen is None and seen[0]",
    ),
    "evaluation moves the state": (
        "nn/base.py",
        "return not self.training or not torch.is_grad_enabled()",
        "return False",
    ),
    "snapshots become buffers": (
        "nn/gaba.py",
        '        self.register_buffer("ema_weights"',
        '        self.register_buffer("snapshot", torch.zeros(1))\n        self.register_buffer("ema_weights"',
    ),
}


def survives(name: str) -> bool:
    """Whether the tests pass on a copy with this mutation."""
    mutation = MUTATIONS[name]
    places = (mutation,) if isinstance(mutation[0], str) else mutation
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "gabactl"
        shutil.copytree(ROOT / "gabactl", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for file, before, after in places:
            source = (copy / file).read_text(encoding="utf-8")
            if source.count(before) != 1:
                raise SystemExit(
                    f"{name}: {file} has {source.count(before)} places like {before!r}"
                )
            (copy / file).write_text(source.replace(before, after), encoding="utf-8")
        run = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-x", "-q", *TESTS],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    if run.returncode not in (0, 1):
        raise SystemExit(f"{name}: pytest did not run\n{run.stdout[-2000:]}{run.stderr[-2000:]}")
    return run.returncode == 0


def main() -> int:
    """Try every mutation; 1 when one survives."""
    survivors = []
    for name in MUTATIONS:
        alive = survives(name)
        print(f"{'SURVIVED' if alive else 'caught  '}  {name}", flush=True)
        if alive:
            survivors.append(name)
    print(f"{len(MUTATIONS) - len(survivors)} of {len(MUTATIONS)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
