"""The published loss class, stated afresh for the tests (section 17.4)."""

import torch
from torch import nn


def grad_norm(loss, shared_params):
    gradients = torch.autograd.grad(
        loss, shared_params, retain_graph=True, create_graph=False, allow_unused=True
    )
    return torch.sqrt(sum(torch.sum(g**2) for g in gradients if g is not None))


class PublishedLoss(nn.Module):
    def __init__(self, beta=0.99, warmup_steps=100, min_weight=0.05, n_tasks=2):
        super().__init__()
        self.beta, self.warmup_steps = beta, warmup_steps
        self.min_weight, self.n_tasks = min_weight, n_tasks
        self.register_buffer("ema_weights", torch.ones(n_tasks) / n_tasks)
        self.register_buffer("step_count", torch.tensor(0, dtype=torch.long))
        self._last_grad_norms = None
        self._last_raw_weights = None

    def forward(self, rul_loss, health_loss, shared_params=None, **kwargs):
        return self.forward_k([rul_loss, health_loss], shared_params)

    def forward_k(self, losses, shared_params=None):
        k = len(losses)
        self.step_count += 1
        if shared_params is None or self.step_count.item() <= self.warmup_steps:
            weights = torch.ones(k, dtype=self.ema_weights.dtype) / k
        else:
            g = torch.stack([grad_norm(loss, shared_params) for loss in losses])
            total = g.sum() + 1e-12
            raw = (total - g) / ((k - 1) * total)
            ema = self.beta * self.ema_weights[:k] + (1.0 - self.beta) * raw
            self.ema_weights[:k] = ema.detach()
            weights = torch.clamp(ema, min=self.min_weight)
            weights = weights / weights.sum()
            self._last_grad_norms, self._last_raw_weights = g.detach(), raw.detach()
        self.last_weights = weights.detach()
        combined = 0.0
        for weight, loss in zip(weights, losses, strict=True):
            combined = combined + weight * loss
        return combined
