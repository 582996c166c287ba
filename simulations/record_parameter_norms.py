"""Record the bundled trace that has every parameter's gradient norm: fd001-parameters.

The small network on FD001 for 300 steps under the published GABA, heads included in what is
recorded, so that the dashboard can show what the sensor would have read had it counted other
parameters.

    python simulations/record_parameter_norms.py --data DIR -o gabactl/traces/bundled

takes about a minute. On another machine or torch version the numbers differ, as training does.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from gabactl.cmapss import load
from gabactl.nn import GABALoss, TraceRecorder, get_shared_params
from gabactl.nn.training.models import build_model
from gabactl.traces import read_trace, write_parquet

NAME = "fd001-parameters"
STEPS, WARMUP, BATCH, SEED = 300, 100, 256, 0


def record(data: Path, file: Path) -> None:
    """Train, and record every step."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    train = load(data, "FD001").train
    inputs, rul, health = (torch.from_numpy(x) for x in (train.inputs, train.rul, train.health))
    model = build_model("small", inputs.shape[-1])
    loss_fn = GABALoss(warmup_steps=WARMUP, guard="none", task_names=("rul", "health"))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    about = {
        "model": "small CNN-BiLSTM-attention",
        "data": "C-MAPSS FD001, batches of 256 windows drawn with replacement",
        "optimizer": "AdamW, lr 1e-3",
        "seed": SEED,
        "command": "python simulations/record_parameter_norms.py",
    }
    draw = torch.Generator().manual_seed(SEED)
    with TraceRecorder(file, loss_fn, about, param_norms=model.named_parameters()) as recorder:
        for _ in range(STEPS):
            batch = torch.randint(len(inputs), (BATCH,), generator=draw)
            predicted, logits = model(inputs[batch])
            losses = [
                functional.mse_loss(predicted, rul[batch]),
                functional.cross_entropy(logits, health[batch]),
            ]
            total = loss_fn.forward_k(losses, shared_params=get_shared_params(model))
            recorder.log(losses)
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            optimiser.step()


def main() -> None:
    """Record, and make it small."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="folder with C-MAPSS")
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for the trace")
    arguments = parser.parse_args()
    target = arguments.output / f"{NAME}.parquet"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{NAME}.parquet"
        record(arguments.data, file)
        trace = read_trace(file)
        # To 1/1024 s, the last bits of which are zero and compress away.
        wall = np.round(trace.wall_time * 1024.0) / 1024.0
        write_parquet(trace.replace(wall_time=wall), target)
    print(f"{target}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
