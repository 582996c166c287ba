"""Lightning, Transformers, Accelerate, TensorBoard and W&B: the real libraries, tiny models."""

import pytest
import torch
from oracles.toys import t480
from torch.utils.data import DataLoader, TensorDataset

from gabactl.base.errors import InputError
from gabactl.nn import FixedLoss, GABALoss, get_shared_params
from gabactl.nn.integrations.logging import log_to_tensorboard, log_to_wandb, scalars


def data_set():
    _, (x, rul, health) = t480()
    return TensorDataset(x, rul, health)


def balance(**settings):
    return GABALoss(**{"warmup_steps": 1, "beta": 0.8, **settings})


def plain_loop(batch_size, epochs, lr=1e-4):
    """What every integration must reproduce: no library at all."""
    model, _ = t480()
    loss_fn = balance()
    optimiser = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for batch in DataLoader(data_set(), batch_size=batch_size):
            optimiser.zero_grad()
            loss_fn.forward_k(model.losses(*batch), get_shared_params(model)).backward()
            optimiser.step()
    return model, loss_fn


def same(model, other):
    return all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-7)
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )


class TestLogging:
    def test_scalars(self):
        model, data = t480()
        loss_fn = balance(warmup_steps=0)
        loss_fn.forward_k(model.losses(*data), get_shared_params(model))
        found = scalars(loss_fn, "b")
        assert found["b/log_ratio"] == pytest.approx(5.341, abs=1e-3)  # ln 208.8, claim C29
        assert found["b/weight_rul"] + found["b/weight_health"] == pytest.approx(1.0)
        assert {"b/ema_rul", "b/grad_norm_rul", "b/raw_health"} <= set(found)
        assert set(scalars(FixedLoss())) == {"balance/weight_rul", "balance/weight_health"}

    def test_tensorboard(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from torch.utils.tensorboard import SummaryWriter

        model, data = t480()
        loss_fn = balance(warmup_steps=0)
        with SummaryWriter(str(tmp_path)) as writer:
            for _ in range(3):
                loss_fn.forward_k(model.losses(*data), get_shared_params(model))
                log_to_tensorboard(writer, loss_fn)
        events = EventAccumulator(str(tmp_path)).Reload()
        points = events.Scalars("balance/weight_rul")
        assert [p.step for p in points] == [1, 2, 3]
        assert points[-1].value == pytest.approx(loss_fn.applied_weights[0].item())
        with pytest.raises(InputError, match="no add_scalar"):
            log_to_tensorboard(object(), loss_fn)

    @pytest.mark.slow
    def test_wandb_offline(self, tmp_path):
        wandb = pytest.importorskip("wandb")
        run = wandb.init(mode="offline", dir=str(tmp_path), project="gabactl-test")
        try:
            log_to_wandb(run, balance())
            assert run.summary["balance/weight_rul"] == 0.5
        finally:
            run.finish()

    def test_wandb_needs_a_run(self):
        with pytest.raises(InputError, match="no log"):
            log_to_wandb(object(), balance())


class TestLightning:
    def module(self, reusing):
        lightning = pytest.importorskip("lightning")

        class Module(lightning.LightningModule):
            def __init__(self):
                super().__init__()
                self.model, _ = t480()
                self.balance = balance()
                self.automatic_optimization = not reusing

            def training_step(self, batch, index):
                losses = self.model.losses(*batch)
                shared = get_shared_params(self.model)
                if not reusing:
                    return self.balance.forward_k(losses, shared)
                optimiser = self.optimizers()
                optimiser.zero_grad()
                self.balance.backward(losses, shared)
                optimiser.step()
                return None

            def configure_optimizers(self):
                return torch.optim.SGD(self.model.parameters(), lr=1e-4)

        return Module()

    def trainer(self, folder, **settings):
        lightning = pytest.importorskip("lightning")
        return lightning.Trainer(
            **{
                "max_epochs": 2,
                "log_every_n_steps": 1,
                "accelerator": "cpu",
                "devices": 1,
                "logger": False,
                "enable_progress_bar": False,
                "enable_model_summary": False,
                "enable_checkpointing": False,
                "default_root_dir": str(folder),
                **settings,
            }
        )

    @pytest.mark.parametrize("reusing", [False, True])
    def test_equals_the_plain_loop_and_logs(self, tmp_path, reusing):
        module = self.module(reusing)
        from lightning.pytorch.loggers import CSVLogger

        from gabactl.nn.integrations.lightning import BalanceLogger

        logger = CSVLogger(str(tmp_path))
        trainer = self.trainer(tmp_path, logger=logger, callbacks=[BalanceLogger(every=2)])
        trainer.fit(module, DataLoader(data_set(), batch_size=16))
        model, loss_fn = plain_loop(16, 2)
        assert same(module.model, model)
        assert torch.allclose(module.balance.ema_weights, loss_fn.ema_weights, rtol=1e-5)
        logged = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()
        assert "balance/weight_rul" in logged[0]
        assert len(logged) == 1 + 4  # steps 2, 4, 6, 8

    def test_a_checkpoint_resumes_equal(self, tmp_path):
        first = self.module(False)
        trainer = self.trainer(tmp_path, max_epochs=1)
        trainer.fit(first, DataLoader(data_set(), batch_size=16))
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        second = self.module(False)
        self.trainer(tmp_path, max_epochs=2).fit(
            second, DataLoader(data_set(), batch_size=16), ckpt_path=tmp_path / "run.ckpt"
        )
        model, loss_fn = plain_loop(16, 2)
        assert second.balance.step_count.item() == loss_fn.step_count.item() == 8
        assert torch.allclose(second.balance.ema_weights, loss_fn.ema_weights, rtol=1e-5)
        assert same(second.model, model)

    def test_a_module_without_a_balancer(self, tmp_path):
        lightning = pytest.importorskip("lightning")
        from gabactl.nn.integrations.lightning import BalanceLogger, grad_scaler_of

        with pytest.raises(InputError, match="has no balancer"):
            BalanceLogger().on_fit_start(None, lightning.LightningModule())
        with pytest.raises(InputError, match="every"):
            BalanceLogger(every=0)
        assert grad_scaler_of(self.trainer(tmp_path)) is None


class TestTransformers:
    def trainer(self, folder, reuse=False, accumulation=1, **settings):
        transformers = pytest.importorskip("transformers")
        from gabactl.nn.integrations.transformers import BalancedTrainerMixin

        class Trainer(BalancedTrainerMixin, transformers.Trainer):
            def task_losses(self, model, inputs):
                losses = model.losses(inputs["x"], inputs["rul"], inputs["health"])
                return losses, {"loss": losses[0]}

            def shared_parameters(self, model):
                return get_shared_params(model)

        model, _ = t480()
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=16 // accumulation,
            gradient_accumulation_steps=accumulation,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            optim="sgd",
            weight_decay=0.0,
            max_grad_norm=0.0,
            report_to=[],
            use_cpu=True,
            disable_tqdm=True,
            remove_unused_columns=False,
            logging_steps=2,
            **{"num_train_epochs": 2, "save_strategy": "no", **settings},
        )
        rows = [dict(zip(("x", "rul", "health"), row, strict=True)) for row in data_set()]
        return Trainer(model, arguments, train_dataset=rows, balancer=balance(), reuse=reuse)

    @pytest.fixture(autouse=True)
    def _in_order(self, monkeypatch):
        transformers = pytest.importorskip("transformers")
        monkeypatch.setattr(
            transformers.Trainer,
            "_get_train_sampler",
            lambda self, *a: torch.utils.data.SequentialSampler(self.train_dataset),
        )

    @pytest.mark.parametrize(("reuse", "accumulation"), [(False, 1), (True, 1), (True, 4)])
    def test_equals_the_plain_loop(self, tmp_path, reuse, accumulation):
        trainer = self.trainer(tmp_path, reuse, accumulation)
        trainer.train()
        model, loss_fn = plain_loop(16, 2)
        assert trainer.balancer.step_count.item() == 8
        assert torch.allclose(trainer.balancer.ema_weights, loss_fn.ema_weights, rtol=1e-4)
        assert same(trainer.model, model)
        assert any("balance/weight_rul" in entry for entry in trainer.state.log_history)

    def test_a_checkpoint_resumes_equal(self, tmp_path):
        self.trainer(tmp_path, num_train_epochs=1, save_strategy="epoch").train()
        second = self.trainer(tmp_path, save_strategy="epoch")
        second.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        model, loss_fn = plain_loop(16, 2)
        assert second.balancer.step_count.item() == 8
        assert torch.allclose(second.balancer.ema_weights, loss_fn.ema_weights, rtol=1e-4)
        assert same(second.model, model)

    def test_reuse_needs_gaba(self):
        from gabactl.nn.integrations.transformers import BalancedTrainerMixin

        with pytest.raises(InputError, match="needs a GABALoss"):
            BalancedTrainerMixin(balancer=FixedLoss(), reuse=True)


class TestAccelerate:
    @pytest.mark.parametrize(("reuse", "accumulation"), [(False, 1), (True, 1), (True, 4)])
    def test_equals_the_plain_loop(self, reuse, accumulation):
        accelerate = pytest.importorskip("accelerate")
        from gabactl.nn.integrations.accelerate import backward

        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
        model, _ = t480()
        loss_fn = balance()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
        loader = DataLoader(data_set(), batch_size=16 // accumulation)
        model, optimiser, loader = accelerator.prepare(model, optimiser, loader)
        accelerator.register_for_checkpointing(loss_fn)
        for _ in range(2):
            for batch in loader:
                with accelerator.accumulate(model):
                    backward(
                        accelerator,
                        loss_fn,
                        model.losses(*batch),
                        get_shared_params(model),
                        reuse=reuse,
                    )
                    optimiser.step()
                    optimiser.zero_grad()
        expected, expected_loss = plain_loop(16, 2)
        assert loss_fn.step_count.item() == 8
        assert torch.allclose(loss_fn.ema_weights, expected_loss.ema_weights, rtol=1e-4)
        assert same(model, expected)
        accelerator.free_memory()

    def test_data_that_end_in_the_middle_of_a_step(self):
        accelerate = pytest.importorskip("accelerate")
        from gabactl.nn.integrations.accelerate import backward

        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=3)
        model, _ = t480()
        optimiser = torch.optim.SGD(model.parameters(), lr=1e-4)
        model, optimiser, loader = accelerator.prepare(
            model, optimiser, DataLoader(data_set(), batch_size=16)
        )
        loss_fn = balance(warmup_steps=0)

        def epoch():
            for batch in loader:
                with accelerator.accumulate(model):
                    losses = model.losses(*batch)
                    backward(accelerator, loss_fn, losses, get_shared_params(model), reuse=True)

        with pytest.raises(InputError, match="make the number of batches a multiple"):
            epoch()
        accelerator.free_memory()
