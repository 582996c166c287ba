"""One rank of a gloo group: runs the scenarios of test_distributed.py and saves what it saw.

Started as ``python ranks_worker.py RANK WORLD FOLDER SCENARIO...``.
"""

import copy
import datetime
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from oracles.toys import t1008
from torch.nn.parallel import DistributedDataParallel

from gabactl.nn import GABALoss, LastLayerSensor, get_shared_params

STEPS = 12


def toy():
    model, (x, rul, health) = t1008()
    return model.double(), (x.double(), rul.double() / 25, health)


class Losses(torch.nn.Module):
    """The toy with its losses as forward, so that DDP and FSDP see a forward pass."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.rul_head = model.backbone, model.rul_head
        self.health_head = model.health_head

    def forward(self, x, rul, health):
        features = self.backbone(x)
        return (
            torch.nn.functional.mse_loss(self.rul_head(features), rul),
            torch.nn.functional.cross_entropy(self.health_head(features), health),
        )


def part_of(data, rank, world, sizes=None):
    sizes = [len(data[0]) // world] * world if sizes is None else sizes
    return [t.split(sizes)[rank] for t in data]


def train(
    rank,
    world,
    reduce,
    how,
    ddp=True,
    sizes=None,
    weighted=False,
    micro=1,
    poison=None,
    interval=1,
    steps=STEPS,
):
    """Parameters, weights and averages of a run; ``rank`` None trains on the union, alone."""
    model, data = toy()
    module = Losses(model)
    shared = get_shared_params(module)
    forward = module
    if rank is not None:
        data = part_of(data, rank, world, sizes)
        forward = DistributedDataParallel(module) if ddp else module
    loss_fn = GABALoss(warmup_steps=2, beta=0.8, interval=interval, reduce=reduce).double()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    weights, averages = [], []
    samples = len(data[0]) if weighted else None
    for step in range(1, steps + 1):
        optimiser.zero_grad()
        for piece in zip(*(t.chunk(micro) for t in data), strict=True):
            losses = forward(*piece)
            if poison is not None and rank == 1 and step == poison:
                losses = [losses[0] * float("nan"), losses[1]]
            if how == "full":
                loss_fn.forward_k(losses, shared, samples=samples).backward()
            else:
                loss_fn.backward(losses, shared, micro_batches=micro, samples=samples)
        if poison != step:
            optimiser.step()
        weights.append(loss_fn.applied_weights.clone())
        averages.append(loss_fn.ema_weights.clone())
    return {
        "parameters": torch.cat([p.detach().reshape(-1) for p in module.parameters()]),
        "weights": torch.stack(weights),
        "averages": torch.stack(averages),
    }


def errors_of(call):
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def disagree(rank):
    model, data = toy()
    loss_fn = GABALoss(warmup_steps=0, reduce="norm_of_mean").double()
    if rank == 1:
        loss_fn.ema_weights.copy_(torch.tensor([0.1, 0.9]))
    loss_fn.forward_k(model.losses(*data), get_shared_params(model))


def unset():
    model, data = toy()
    loss_fn = GABALoss(warmup_steps=0).double()
    loss_fn.forward_k(model.losses(*data), get_shared_params(model))


def fsdp(rank, world, how, micro=1, interval=1, scaler=None, named=True, sensor=None):
    from torch.distributed.fsdp import fully_shard

    model, data = toy()
    module = Losses(model)
    for part in (module.backbone[0], module.backbone[2], module.rul_head, module.health_head):
        fully_shard(part)
    fully_shard(module)
    shared = get_shared_params(module)
    loss_fn = GABALoss(
        warmup_steps=2,
        beta=0.8,
        interval=interval,
        sensor=None if sensor is None else sensor(module),
        reduce="norm_of_mean",
        sharded=module if named else None,
    ).double()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    data = part_of(data, rank, world)
    weights, averages = [], []
    for _ in range(STEPS):
        optimiser.zero_grad()
        for piece in zip(*(t.chunk(micro) for t in data), strict=True):
            losses = module(*piece)
            if how == "full":
                total = loss_fn.forward_k(losses, shared, grad_scaler=scaler)
                (total if scaler is None else scaler.scale(total)).backward()
            else:
                loss_fn.backward(losses, shared, micro_batches=micro, grad_scaler=scaler)
        if scaler is None:
            optimiser.step()
        else:
            scaler.step(optimiser)
            scaler.update()
        weights.append(loss_fn.applied_weights.clone())
        averages.append(loss_fn.ema_weights.clone())
    parameters = [p.full_tensor().detach().reshape(-1) for p in module.parameters()]
    return {
        "parameters": torch.cat(parameters),
        "weights": torch.stack(weights),
        "averages": torch.stack(averages),
    }


def powers_of_two():
    """A scaler whose scale changes no digit."""
    return torch.amp.GradScaler("cpu", init_scale=2.0**8)


def scenarios(rank, world):
    uneven = [64 - 8 * (world - 1)] + [8] * (world - 1)
    return {
        "alone": lambda: train(None, 1, "local", "full"),
        "mean-full": lambda: train(rank, world, "norm_of_mean", "full"),
        "mean-reuse": lambda: train(rank, world, "norm_of_mean", "reuse"),
        "mean-reuse-bare": lambda: train(rank, world, "norm_of_mean", "reuse", ddp=False),
        "mean-reuse-interval": lambda: train(rank, world, "norm_of_mean", "reuse", interval=3),
        "mean-reuse-micro": lambda: train(rank, world, "norm_of_mean", "reuse", micro=2),
        "norms-full": lambda: train(rank, world, "mean_of_norms", "full"),
        "norms-reuse": lambda: train(rank, world, "mean_of_norms", "reuse"),
        "local-full": lambda: train(rank, world, "local", "full"),
        "uneven": lambda: train(rank, world, "norm_of_mean", "reuse", sizes=uneven, weighted=True),
        "poison": lambda: train(rank, world, "norm_of_mean", "full", poison=6, steps=6),
        "poison-norms": lambda: train(rank, world, "mean_of_norms", "reuse", poison=6, steps=6),
        "unset": lambda: errors_of(unset),
        "disagree": lambda: errors_of(lambda: disagree(rank)),
        "fsdp-full": lambda: fsdp(rank, world, "full"),
        "fsdp-reuse": lambda: fsdp(rank, world, "reuse"),
        "fsdp-reuse-micro": lambda: fsdp(rank, world, "reuse", micro=2),
        "fsdp-reuse-interval": lambda: fsdp(rank, world, "reuse", interval=3),
        "fsdp-full-scaled": lambda: fsdp(rank, world, "full", scaler=powers_of_two()),
        "fsdp-reuse-scaled": lambda: fsdp(rank, world, "reuse", scaler=powers_of_two()),
        "fsdp-unnamed": lambda: errors_of(lambda: fsdp(rank, world, "reuse", named=False)),
        "fsdp-last-layer": lambda: errors_of(
            lambda: fsdp(
                rank,
                world,
                "full",
                sensor=lambda m: LastLayerSensor(
                    m.backbone[2].parameters(), recalibrate_every=None
                ),
            )
        ),
    }


def die(rank):
    """Rank 1 leaves after two steps; what the others see."""
    model, data = toy()
    loss_fn = GABALoss(warmup_steps=0, reduce="norm_of_mean").double()
    for step in range(4):
        if rank == 1 and step == 2:
            os._exit(0)
        loss_fn.forward_k(model.losses(*data), get_shared_params(model))


def main():
    rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    names = sys.argv[4:]
    if names == ["alone"]:
        torch.save(scenarios(0, 1)["alone"](), folder / "alone.pt")
        return
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world,
        timeout=datetime.timedelta(seconds=120),
    )
    results = {}
    for name in names:
        results[name] = (
            errors_of(lambda: die(rank)) if name == "die" else scenarios(rank, world)[name]()
        )
    torch.save(copy.deepcopy(results), folder / f"rank{rank}.pt")
    if names == ["die"]:
        os._exit(0)  # the threads of a torn group may abort an interpreter that ends
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
