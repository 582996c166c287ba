"""What each sensor costs and how wrong its weights are, on training runs on C-MAPSS.

One GABA loss with the event sensor drives the training. On the same steps, from the same losses,
every other sensor feeds a controller of its own, and exact norms are taken at every step: what
separates a controller's weights from those of the exact one is its sensor alone. Three times in
the run the proxies are calibrated on 50 batches. Targets in cycles (published; the ratio is far
beyond the floor) and divided by 125 (nearer to balance, where readings count for more).

    python simulations/sensors_on_cmapss.py --data DIR

writes simulations/results/sensors_cmapss.json and, from it, docs/sensors-on-cmapss.md: some five
minutes per run of 2,400 steps on one core. Without --data only the page is written. The cost of the event sensor is the CPU time of its call over that of the rest of the step;
what the exact norms for comparison take is left out.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gabactl.base.files import write_text
from gabactl.cmapss import load
from gabactl.nn import (
    EventSensor,
    GABALoss,
    LastLayerSensor,
    RepresentationSensor,
    calibrate,
    get_shared_params,
)
from gabactl.nn.sensors.base import Sensor
from gabactl.nn.training.models import build_model

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "simulations" / "results" / "sensors_cmapss.json"
PAGE = ROOT / "docs" / "sensors-on-cmapss.md"
BATCH = 256
BUDGET = 0.03
#: What C-MAPSS subsets take: epochs of 61 and 160 steps.
EPOCHS = {"FD001": 40, "FD002": 15}


def last_layer(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the last shared layer."""
    ends: Any = model.reduce
    return list([m for m in ends if isinstance(m, nn.Linear)][-1].parameters())


def controllers(model: nn.Module) -> dict[str, GABALoss]:
    """The published settings behind every sensor; the first one drives the training."""
    ends: Any = model.reduce

    def behind(sensor: Sensor | None, **settings: Any) -> GABALoss:
        return GABALoss(sensor=sensor, **settings)

    return {
        f"event {BUDGET}": behind(EventSensor(BUDGET)),
        "full": behind(None),
        # With backward() a reading costs one pass, so the same budget buys twice as many.
        f"event {BUDGET}, reuse": behind(EventSensor(BUDGET, 0.6)),
        "interval 10": behind(None, interval=10),
        "interval 40": behind(None, interval=40),
        "representation": behind(RepresentationSensor(ends, recalibrate_every=None)),
        "representation, recalibrated every 10": behind(RepresentationSensor(ends)),
        "last layer": behind(LastLayerSensor(last_layer(model), recalibrate_every=None)),
        "last layer, recalibrated every 10": behind(LastLayerSensor(last_layer(model))),
    }


class Run:
    """One training run with all sensors watching."""

    def __init__(self, folder: Path, subset: str, scale: float, seed: int) -> None:
        self.subset, self.scale, self.seed = subset, scale, seed
        data = load(folder, subset, seed=seed)
        torch.manual_seed(seed)
        self.model = build_model("small", subset=subset)
        self.inputs = torch.from_numpy(data.train.inputs)
        self.rul = torch.from_numpy(data.train.rul / np.float32(scale))
        self.health = torch.from_numpy(data.train.health)
        self.shared = get_shared_params(self.model)
        self.all = controllers(self.model)
        self.weights: dict[str, list[list[float]]] = {name: [] for name in self.all}
        self.averages: dict[str, list[list[float]]] = {name: [] for name in self.all}
        self.readings = dict.fromkeys(self.all, 0)
        self.log_ratios: list[float] = []
        self.sensor_seconds = self.step_seconds = 0.0

    def losses(self, model: nn.Module, rows: torch.Tensor) -> list[torch.Tensor]:
        """RUL and health loss of a batch."""
        predicted, logits = model(self.inputs[rows])
        return [
            nn.functional.mse_loss(predicted, self.rul[rows]),
            nn.functional.cross_entropy(logits, self.health[rows]),
        ]

    def step(self, rows: torch.Tensor, optimiser: torch.optim.Optimizer) -> None:
        """One training step under the event sensor, and a reading by everybody else."""
        clock = time.process_time
        begin = clock()
        losses = self.losses(self.model, rows)
        forward = clock() - begin
        names = list(self.all)
        begin = clock()
        total = self.all[names[0]].forward_k(losses, self.shared)
        # The sum itself is formed in every training loop, but counted as the sensor's here.
        self.sensor_seconds += clock() - begin
        for name in names[1:]:
            self.all[name].forward_k(losses, self.shared)
        begin = clock()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        self.step_seconds += forward + clock() - begin
        for name, loss_fn in self.all.items():
            self.readings[name] += loss_fn.measured_this_step
            self.weights[name].append(loss_fn.applied_weights.tolist())
            self.averages[name].append(loss_fn.ema_weights.tolist())
        norms = self.all["full"]._last_grad_norms
        if norms is not None:
            self.log_ratios.append(float((norms[0] / norms[1]).log()))

    def train(self, epochs: int) -> list[dict[str, Any]]:
        """The run; calibrations of the proxies on the way."""
        optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-3, weight_decay=1e-4)
        at = {max(1, epochs // 8), epochs // 2, epochs}
        found = []
        for epoch in range(epochs):
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * min(1.0, 0.1 + 0.9 * epoch / 10)
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.rul))
            batches = torch.from_numpy(order).split(BATCH)[: len(order) // BATCH]
            for rows in batches:
                self.step(rows, optimiser)
            if epoch + 1 in at:
                found += self.calibrations(epoch + 1)
        return found

    def calibrations(self, epoch: int) -> list[dict[str, Any]]:
        """Both proxies against exact norms on a copy of the model as it is now."""
        rows = []
        for kind in ("representation", "last layer"):
            copy = build_model("small", subset=self.subset)
            copy.load_state_dict(self.model.state_dict())
            state = torch.get_rng_state()
            order = np.random.default_rng([self.seed, 10**6 + epoch]).permutation(len(self.rul))
            ends: Any = copy.reduce
            sensor = (
                RepresentationSensor(ends)
                if kind == "representation"
                else LastLayerSensor(last_layer(copy))
            )
            batches = torch.from_numpy(order).split(BATCH)[:50]
            result = calibrate(copy, batches, self.losses, sensor).to_dict()
            torch.set_rng_state(state)
            bias, correlation = (float(result[k][0]) for k in ("bias", "correlation"))
            rows.append(
                {"epoch": epoch, "proxy": kind}
                | {"bias": bias, "correlation": correlation}
                | {k: result[k] for k in ("weight_error", "corrected_weight_error", "verdict")}
            )
        return rows

    def summary(self) -> dict[str, Any]:
        """Per sensor: readings, and how far its controller is from the exact one."""
        exact = {"weights": np.array(self.weights["full"]), "ema": np.array(self.averages["full"])}
        steps = len(exact["ema"])
        rows = {}
        for name in self.all:
            error = np.abs(np.array(self.averages[name]) - exact["ema"]).max(axis=1)
            applied = np.abs(np.array(self.weights[name]) - exact["weights"]).max(axis=1)
            rows[name] = {
                "readings": self.readings[name],
                "final_ema_error": float(error[-1]),
                "final_weight_error": float(applied[-1]),
                "mean_ema_error_second_half": float(error[steps // 2 :].mean()),
                "largest_ema_error_second_half": float(error[steps // 2 :].max()),
                "largest_weight_error": float(applied.max()),
            }
        logs = np.array(self.log_ratios)
        return {
            "steps": steps,
            "median_ratio": float(np.exp(np.median(logs))),
            "noise_of_log_ratio": float(np.diff(logs).std() / np.sqrt(2)),
            "overhead_of_event": self.sensor_seconds / self.step_seconds,
            "sensors": rows,
        }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with C-MAPSS")
    parser.add_argument("--subsets", nargs="+", default=list(EPOCHS), choices=list(EPOCHS))
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 125.0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, help="fewer, to try it out")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # Runs that are not made now stay as an earlier call left them.
    result: dict[str, Any] = {"runs": {}}
    if options.output.exists():
        result = json.loads(options.output.read_text(encoding="utf-8"))
    if options.data is None:
        write_text(PAGE, page(result))
        return
    for seed in options.seeds:
        for scale in options.scales:
            for subset in options.subsets:
                run = Run(options.data, subset, scale, seed)
                epochs = options.epochs or EPOCHS[subset]
                calibrations = run.train(epochs)
                name = f"{subset}, targets / {scale:g}, seed {seed}"
                result["runs"][name] = {
                    "subset": subset,
                    "target_scale": scale,
                    "seed": seed,
                    "epochs": epochs,
                    "torch": torch.__version__,
                    "date": time.strftime("%Y-%m-%d", time.gmtime()),
                    **run.summary(),
                    "calibrations": calibrations,
                }
                show(name, result["runs"][name])
                text = json.dumps(result, indent=2, allow_nan=False) + "\n"
                write_text(options.output, text)
    if options.output == RESULT:
        write_text(PAGE, page(result))


def show(name: str, run: dict[str, Any]) -> None:
    """One run as a table."""
    print(
        f"{name}: {run['steps']} steps, median ratio {run['median_ratio']:.3g}, event sensor "
        f"{100 * run['overhead_of_event']:.2f} % of a plain step (budget {100 * BUDGET:g} %)"
    )
    for sensor, row in run["sensors"].items():
        print(
            f"  {sensor:40} {row['readings']:5} readings, error of the average: end "
            f"{row['final_ema_error']:.4f}, mean {row['mean_ema_error_second_half']:.4f}, largest "
            f"{row['largest_ema_error_second_half']:.4f}; of the weights: end "
            f"{row['final_weight_error']:.4f}"
        )
    for row in run["calibrations"]:
        print(
            f"  epoch {row['epoch']:3} {row['proxy']:16} bias {row['bias']:+.3f}, correlation "
            f"{row['correlation']:.3f}, raw weight off by {row['weight_error']:.4f}, "
            f"{row['corrected_weight_error']:.4f} without the bias: {row['verdict']}"
        )


def page(result: dict[str, Any]) -> str:
    """The figures as a page of the documentation."""
    lines = [
        "# Sensors on C-MAPSS",
        "",
        "Training runs of the small network on C-MAPSS (batch 256, AdamW, one CPU core). A GABA loss",
        f"with the event sensor, budget {100 * BUDGET:g} %, drives the training; on the same steps every",
        "other sensor feeds a controller of its own. Errors are distances from the controller that",
        "reads exact norms at every step: of the stored average, and of the applied weights, which the",
        "floor bounds. Written by `simulations/sensors_on_cmapss.py`.",
        "",
        "With targets in cycles (/ 1) the ratio is far beyond the floor and every sensor will do. With",
        "targets / 125 it is below 1 and nearer to balance, where a sensor shows what it is worth.",
        "",
        "What the event sensor took is the CPU time of its whole call, the weighted sum included, over",
        "that of the rest of the step; its budget is for the readings alone.",
    ]
    if all(run["target_scale"] == 1.0 for run in result["runs"].values()):
        lines += ["The runs below are of the first kind."]
    for name, run in result["runs"].items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{run['steps']:,} steps, median ratio {run['median_ratio']:.3g}; from step to step the "
            f"log-ratio scatters by {run['noise_of_log_ratio']:.2f}. The event sensor took "
            f"{100 * run['overhead_of_event']:.2f} % of a plain step.",
            "",
            "| sensor | readings | average, at the end | average, mean of the second half | "
            "weights, at the end |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {sensor} | {row['readings']:,} | {row['final_ema_error']:.4f} | "
            f"{row['mean_ema_error_second_half']:.4f} | {row['final_weight_error']:.4f} |"
            for sensor, row in run["sensors"].items()
            if sensor != "full"
        ]
        lines += [
            "",
            "`calibrate` on 50 batches of the model as it then was:",
            "",
            "| epoch | proxy | bias of the log-ratio | correlation | raw weight off by | "
            "without the bias | verdict |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {row['epoch']} | {row['proxy']} | {row['bias']:+.3f} | {row['correlation']:.2f} | "
            f"{row['weight_error']:.4f} | {row['corrected_weight_error']:.4f} | {row['verdict']} |"
            for row in run["calibrations"]
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
