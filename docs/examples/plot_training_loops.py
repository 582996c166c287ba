"""
In whose training loop?
=======================

The same training, balanced the same way, in a plain loop, in Lightning, in Transformers and with
Accelerate. All four end with the same weights, because the balancer is a module that takes losses and
leaves the rest to whoever runs the loop.
"""

import tempfile
import warnings

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gabactl.nn import GABALoss, get_shared_params

warnings.filterwarnings("ignore")


class Model(nn.Module):
    """A backbone with two heads; the heads' names say that they are not shared."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(14, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.rul_head, self.health_head = nn.Linear(16, 1), nn.Linear(16, 3)

    def losses(self, x, rul, health):
        """One loss per task."""
        features = self.backbone(x)
        return [
            nn.functional.mse_loss(self.rul_head(features).squeeze(-1), rul),
            nn.functional.cross_entropy(self.health_head(features), health),
        ]


generator = torch.Generator().manual_seed(1)
x = torch.randn(512, 14, generator=generator)
rul = 5.0 + x[:, 0] + x[:, 1] ** 2
health = (x[:, 2] > 0).long() + (x[:, 3] > 1).long()
data = TensorDataset(x, rul, health)


def balancer():
    """Settings that show something within 64 steps."""
    return GABALoss(warmup_steps=8, beta=0.9)


# %%
# A plain loop
# ------------
# ``backward`` leaves ``.grad`` as ``forward_k(...).backward()`` would, in one backbone pass less.

model, balance = Model(), balancer()
optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
for _ in range(4):
    for batch in DataLoader(data, batch_size=32):
        optimiser.zero_grad()
        balance.backward(model.losses(*batch), get_shared_params(model))
        optimiser.step()
found = {"plain loop": balance.get_weights()}

# %%
# Lightning
# ---------
# The balancer is an attribute of the module, and so a part of its checkpoints. ``BalanceLogger`` logs
# through the trainer's logger, here to a CSV file.

import lightning  # noqa: E402
from lightning.pytorch.loggers import CSVLogger  # noqa: E402

from gabactl.nn.integrations.lightning import BalanceLogger  # noqa: E402


class Module(lightning.LightningModule):
    """Returns the balanced total; Lightning runs the backward pass."""

    def __init__(self):
        super().__init__()
        self.model, self.balance = Model(), balancer()

    def training_step(self, batch, index):
        """The total of one batch."""
        return self.balance.forward_k(self.model.losses(*batch), get_shared_params(self.model))

    def configure_optimizers(self):
        """As in the plain loop."""
        return torch.optim.SGD(self.model.parameters(), lr=1e-2)


folder = tempfile.mkdtemp()
module = Module()
lightning.Trainer(
    max_epochs=4,
    accelerator="cpu",
    logger=CSVLogger(folder),
    callbacks=[BalanceLogger(every=16)],
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
).fit(module, DataLoader(data, batch_size=32))
found["Lightning"] = module.balance.get_weights()

# %%
# Transformers
# ------------
# The mixin goes before ``Trainer``, and is told of the losses and of the shared parameters.

import transformers  # noqa: E402

from gabactl.nn.integrations.transformers import BalancedTrainerMixin  # noqa: E402


class Trainer(BalancedTrainerMixin, transformers.Trainer):
    """The batches in the order of the data, so that all four trainings see the same ones."""

    def task_losses(self, model, inputs):
        """The losses, and the model's outputs."""
        losses = model.losses(inputs["x"], inputs["rul"], inputs["health"])
        return losses, {"loss": losses[0]}

    def shared_parameters(self, model):
        """What both tasks share."""
        return get_shared_params(model)

    def _get_train_sampler(self, *args):
        return torch.utils.data.SequentialSampler(self.train_dataset)


trainer = Trainer(
    Model(),
    transformers.TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=32,
        num_train_epochs=4,
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        remove_unused_columns=False,
    ),
    train_dataset=[dict(zip(("x", "rul", "health"), row, strict=True)) for row in data],
    balancer=balancer(),
    reuse=True,
)
trainer.train()
found["Transformers"] = trainer.balancer.get_weights()

# %%
# Accelerate
# ----------
# One call in place of ``accelerator.backward``. Four micro-batches of eight make one step, with one
# reading, on the accumulated gradient: the same as a batch of 32.

from accelerate import Accelerator  # noqa: E402

from gabactl.nn.integrations.accelerate import backward  # noqa: E402

accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
model, balance = Model(), balancer()
optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
model, optimiser, loader = accelerator.prepare(model, optimiser, DataLoader(data, batch_size=8))
accelerator.register_for_checkpointing(balance)
for _ in range(4):
    for batch in loader:
        with accelerator.accumulate(model):
            backward(
                accelerator, balance, model.losses(*batch), get_shared_params(model), reuse=True
            )
            optimiser.step()
            optimiser.zero_grad()
found["Accelerate"] = balance.get_weights()

# %%
# The same weights
# ----------------

for name, weights in found.items():
    print(f"{name:14} {weights['rul_weight']:.6f} {weights['health_weight']:.6f}")
spread = max(w["rul_weight"] for w in found.values()) - min(w["rul_weight"] for w in found.values())
assert spread < 1e-5
