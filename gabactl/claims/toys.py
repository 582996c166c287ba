"""Claims settled by small torch models: the published toys, run here and now on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from gabactl.claims.evidence import Evidence, Finding, judged, near


def _toy(hidden: bool) -> tuple[Any, Callable[[], tuple[Any, Any]]]:
    """The published toy (480 or 1,008 shared numbers), and its two losses."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model: Any = nn.Module()
    if hidden:
        model.backbone = nn.Sequential(nn.Linear(14, 32), nn.ReLU(), nn.Linear(32, 16))
    else:
        model.backbone = nn.Linear(14, 32)
    width = 16 if hidden else 32
    model.rul_head, model.health_head = nn.Linear(width, 1), nn.Linear(width, 3)
    x = torch.randn(64, 14)
    rul, health = torch.rand(64, 1) * 125, torch.randint(0, 3, (64,))

    def losses() -> tuple[Any, Any]:
        shared = model.backbone(x)
        return (
            nn.functional.mse_loss(model.rul_head(shared), rul),
            nn.functional.cross_entropy(model.health_head(shared), health),
        )

    return model, losses


def _norms(model: Any, losses: Any, heads: bool = False) -> list[float]:
    from gabactl.nn import compute_task_grad_norm, get_shared_params

    shared = list(model.parameters()) if heads else get_shared_params(model)
    return [float(compute_task_grad_norm(loss, shared)) for loss in losses]


def toy_contributions() -> Evidence:
    """C06: equal contributions on the 480-parameter toy."""
    from gabactl.law.stages import raw_weights

    model, losses = _toy(False)
    g = _norms(model, losses())
    c = raw_weights(g) * g
    gap = abs(float(c[0] - c[1]))
    return judged(
        [
            near("c_1 on the 480-parameter toy", 0.364791, c[0], 2e-6, "{:.6f}"),
            Finding("c_1 - c_2", "below 1e-6", f"{gap:.1e}", gap < 1e-6),
        ]
    )


def toy_ratios() -> Evidence:
    """C29: gradient norms and ratios of both toys."""
    findings = []
    for hidden, name, claimed, ratio in (
        (True, "1,008 parameters", (114.4296, 0.2164), 528.8),
        (False, "480 parameters", (76.5335, 0.3665), 208.8),
    ):
        model, losses = _toy(hidden)
        g = _norms(model, losses())
        good = all(abs(x - y) < 6e-5 for x, y in zip(g, claimed, strict=True))
        findings += [
            Finding(f"norms, {name}", f"{claimed}", f"({g[0]:.4f}, {g[1]:.4f})", good),
            near(f"ratio, {name}", ratio, g[0] / g[1], 0.06, "{:.1f}x"),
        ]
    return judged(findings)


def toy_run() -> Evidence:
    """C30: 250 steps on the 1,008-parameter toy (Adam, learning rate 1e-3)."""
    import torch

    from gabactl.nn import GABALoss, get_shared_params

    model, losses = _toy(True)
    loss = GABALoss(guard="none")
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    seen = {}
    for step in range(1, 251):
        total = loss(*losses(), shared_params=get_shared_params(model))
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        seen[step] = loss.get_weights()["rul_weight"]
        if step == 101:
            stats = loss.get_gradient_stats()
    first = (stats["grad_norm_rul"], stats["grad_norm_health"])
    close = abs(first[0] / 449 - 1) < 0.15 and abs(first[1] / 0.22 - 1) < 0.15
    return judged(
        [
            Finding("stored weight through step 100", "0.5", f"{seen[100]:g}", seen[100] == 0.5),
            Finding(
                "first reading", "about (449, 0.22)", f"({first[0]:.0f}, {first[1]:.2f})", close
            ),
            Finding("at step 150", "0.30", f"{seen[150]:.4f}", abs(seen[150] - 0.30) < 0.005),
            Finding("at step 250", "0.11", f"{seen[250]:.4f}", abs(seen[250] - 0.11) < 0.005),
            Finding("optimiser", "not stated", "Adam, learning rate 1e-3 (our choice)"),
        ]
    )


def heads_in_the_sensor() -> Evidence:
    """C32: ratio with the heads counted as shared."""
    findings = []
    for hidden, name in ((True, "1,008"), (False, "480")):
        model, losses = _toy(hidden)
        alone, both = (
            g[0] / g[1] for g in (_norms(model, losses()), _norms(model, losses(), True))
        )
        factor = both / alone
        agrees = abs(factor / 1.4 - 1) < 0.1 if hidden else None
        findings.append(
            Finding(
                f"ratio on the {name}-parameter toy with the heads",
                "500x becomes about 700x (factor 1.4)",
                f"{alone:.0f}x becomes {both:.0f}x (factor {factor:.2f})",
                agrees,
            )
        )
    return judged(findings)


def graph_without_detach() -> Evidence:
    """C17: nodes of the loss graph over 20 steps when the average is not detached."""
    import torch

    from gabactl.nn import get_shared_params

    def nodes(loss: Any) -> int:
        seen, todo = set(), [loss.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [parent for parent, _ in node.next_functions]
        return len(seen)

    def growth(create_graph: bool, detach: bool) -> tuple[int, int]:
        model, losses = _toy(False)
        shared = get_shared_params(model)
        ema = torch.full((2,), 0.5)
        counts = []
        for _ in range(20):
            pair = losses()
            parts = [
                torch.autograd.grad(loss, shared, retain_graph=True, create_graph=create_graph)
                for loss in pair
            ]
            g = torch.stack(
                [torch.stack([p.pow(2).sum() for p in of]).sum().sqrt() for of in parts]
            )
            ema = 0.9 * ema + 0.1 * (g.sum() - g) / g.sum()
            if detach:
                ema = ema.detach()
            counts.append(nodes(ema[0] * pair[0] + ema[1] * pair[1]))
        return counts[0], counts[-1]

    findings = []
    for create_graph, name in (
        (False, "published sensor (no graph of the norms)"),
        (True, "differentiable norms"),
    ):
        before, after = growth(create_graph, False)
        _, detached = growth(create_graph, True)
        findings.append(
            Finding(
                f"graph nodes at steps 1 and 20 without detach, {name}",
                "grows",
                f"{before} and {after} (with detach: {detached})",
                (after > before) if not create_graph else None,
            )
        )
    return judged(findings)


def second_measurement() -> Evidence:
    """C18: a second gradient through a freed graph raises."""
    from gabactl.nn import compute_task_grad_norm, get_shared_params

    def raises(retain: bool) -> str:
        model, losses = _toy(False)
        shared = get_shared_params(model)
        first, second = losses()
        compute_task_grad_norm(first, shared, retain_graph=retain)
        try:
            compute_task_grad_norm(second, shared, retain_graph=retain)
            compute_task_grad_norm(first, shared, retain_graph=retain)
        except RuntimeError as error:
            return type(error).__name__
        return "no error"

    freed, kept = raises(False), raises(True)
    return judged(
        [
            Finding("measured again, graph freed", "raises", freed, freed == "RuntimeError"),
            Finding("measured again, graph retained", "works", kept, kept == "no error"),
        ]
    )


def state_round_trip() -> Evidence:
    """C19: what moves and what is saved."""
    import torch

    from gabactl.nn import GABALoss

    def loss_after(steps: int) -> Any:
        module = GABALoss(warmup_steps=1)
        theta = torch.ones(2, requires_grad=True)
        for _ in range(steps):
            module(3.0 * theta[0], theta[1], shared_params=[theta])
        return module

    module = loss_after(5)
    saved = copy.deepcopy(module.state_dict())
    other = GABALoss(warmup_steps=1)
    other.load_state_dict(saved)
    moved = loss_after(5).to(torch.float64)
    keys = sorted(saved)
    theta = torch.ones(2, requires_grad=True)
    both = [m(3.0 * theta[0], theta[1], shared_params=[theta]).item() for m in (module, other)]
    findings = [
        Finding(
            "keys of the state",
            "average and step",
            ", ".join(keys),
            keys == ["ema_weights", "step_count"],
        ),
        Finding("next loss after loading", "the same", f"{both[1]!r}", both[0] == both[1]),
        Finding(
            "snapshot after loading",
            "none",
            str(GABALoss().get_gradient_stats() or "none"),
            not any("last" in key for key in keys),
        ),
        Finding(
            ".to(float64) moves the average",
            "moves",
            str(moved.ema_weights.dtype),
            moved.ema_weights.dtype == torch.float64 and int(moved.step_count) == 5,
        ),
    ]
    if torch.cuda.is_available():
        device = loss_after(5).to("cuda").ema_weights.device.type
        findings.append(Finding(".to(cuda)", "moves", device, device == "cuda"))
    else:
        findings.append(Finding(".to(cuda)", "moves", "no device here"))
    return judged(findings)


def gradnorm_step() -> Evidence:
    """C34: one GradNorm step on the 480-parameter toy."""
    from gabactl.nn import GradNormLoss, get_shared_params

    model, losses = _toy(False)
    loss = GradNormLoss("textbook", alpha=1.5, lr=0.05, auxiliary_weight=1.0)
    loss(*losses(), shared_params=get_shared_params(model))
    ours = float(loss.task_weights[0])
    return judged(
        [
            Finding(
                "RUL weight after one step at learning rate 0.05, auxiliary weight 1",
                "-2.83",
                f"{ours:.4f}",
                abs(ours + 2.8267) < 1e-3,
            )
        ]
    )


CHECKS = (
    toy_contributions,
    toy_ratios,
    toy_run,
    heads_in_the_sensor,
    graph_without_detach,
    second_measurement,
    state_round_trip,
    gradnorm_step,
)
