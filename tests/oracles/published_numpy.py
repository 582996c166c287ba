"""The published algorithm, stated afresh for the tests (sections 17.2 and 17.4).

Written without any code of gabactl, so that agreement means something.
"""

import numpy as np


class PublishedController:
    """Section 17.4: NumPy mirror of the published class."""

    def __init__(self, n_tasks=2, beta=0.99, warmup_steps=100, min_weight=0.05):
        self.n_tasks, self.beta = n_tasks, beta
        self.warmup_steps, self.min_weight = warmup_steps, min_weight
        self.ema_weights = np.ones(n_tasks) / n_tasks
        self.step_count = 0

    def step(self, losses, grad_norms=None):
        k = len(losses)
        self.step_count += 1
        if grad_norms is None or self.step_count <= self.warmup_steps:
            weights = np.ones(k) / k
        else:
            g = np.array(grad_norms, dtype=float)
            total = np.sum(g) + 1e-12
            raw = (total - g) / ((k - 1) * total)
            ema = self.beta * self.ema_weights[:k] + (1.0 - self.beta) * raw
            self.ema_weights[:k] = ema
            clamped = np.maximum(ema, self.min_weight)
            weights = clamped / np.sum(clamped)
        combined = 0.0
        for weight, loss in zip(weights, losses, strict=True):
            combined = combined + weight * loss
        return combined, weights
