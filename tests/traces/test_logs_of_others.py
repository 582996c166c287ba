"""TensorBoard event files and W&B exports: written by the real libraries, read by the one opener."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.cli import main
from gabactl.law.spec import GabaSpec
from gabactl.runs.replay import replay
from gabactl.runs.saturation import saturation
from gabactl.traces import iter_trace, load_bundled, read_trace

TASKS = ("RUL", "health")


@pytest.fixture(scope="module")
def norms():
    rng = np.random.default_rng(3)
    return np.exp(rng.normal(0, 0.4, (300, 2))) * [500.0, 1.0]


def same_to_float32(found, expected):
    np.testing.assert_array_equal(found, np.float32(expected).astype(float))


class TestTensorBoard:
    @pytest.fixture
    def writer(self, tmp_path):
        board = pytest.importorskip("torch.utils.tensorboard")
        pytest.importorskip("tensorboard")
        opened = []

        def new(name="run", **options):
            opened.append(board.SummaryWriter(str(tmp_path / name), **options))
            return opened[-1]

        yield new
        for one in opened:
            one.close()

    def test_scalars_by_task(self, writer, tmp_path, norms):
        log = writer()
        for step, (a, b) in enumerate(norms, start=1):
            log.add_scalar("lr", 1e-3, step)
            log.add_scalar("train/loss", 3.0, step)
            log.add_scalar("loss/RUL", step * 2.0, step)
            log.add_scalar("loss/health", step * 3.0, step)
            if step > 100:  # nothing is measured during the warm-up
                log.add_scalar("grad_norm/RUL", a, step)
                log.add_scalar("grad_norm/health", b, step)
                log.add_scalar("weight/RUL", 0.25, step)
                log.add_scalar("weight/health", 0.75, step)
        log.add_histogram("grad_norm/hist", np.arange(10), 1)
        log.close()
        trace = read_trace(tmp_path / "run")
        assert trace.tasks == TASKS
        assert trace.step.tolist() == list(range(1, 301))
        assert trace.measured.tolist() == [step > 100 for step in trace.step]
        same_to_float32(trace.grad_norms[100:], norms[100:])
        assert np.isnan(trace.grad_norms[:100]).all()
        assert trace.losses[6].tolist() == [14.0, 21.0]
        assert trace.weights[150].tolist() == [0.25, 0.75]
        assert trace.raw is None
        assert trace.precision == "float32"
        assert trace.wall_time.min() == 0
        assert not trace.truncated
        assert trace.metadata["logged_as"]["grad_norm_RUL"] == "grad_norm/RUL"
        one = next((tmp_path / "run").glob("events*"))
        assert read_trace(one).grad_norms.shape == (300, 2)

    def test_what_our_integration_writes_is_read_back(self, writer, tmp_path):
        torch = pytest.importorskip("torch")
        from gabactl.nn import GABALoss
        from gabactl.nn.integrations.logging import log_to_tensorboard

        log = writer()
        loss_fn = GABALoss(warmup_steps=5)
        w = torch.ones(2, requires_grad=True)
        expected = []
        for step in range(1, 41):
            losses = [(500.0 + step) * w[0], 1.0 * w[1]]
            loss_fn(*losses, shared_params=[w])
            log_to_tensorboard(log, loss_fn)
            expected.append(loss_fn.applied_weights.tolist())
        log.close()
        trace = read_trace(tmp_path / "run")
        assert trace.tasks == ("rul", "health")
        np.testing.assert_array_equal(trace.weights, expected)
        np.testing.assert_allclose(trace.grad_norms[39], [540.0, 1.0])
        np.testing.assert_allclose(
            trace.ema[5:],
            replay(GabaSpec(warmup=5), trace.grad_norms, trace.measured).ema[5:],
            atol=5e-6,
        )

    def test_add_scalars_makes_folders(self, writer, tmp_path, norms):
        log = writer()
        for step in range(1, 6):
            log.add_scalars("train/grad_norm", dict(zip(TASKS, norms[step], strict=True)), step)
            log.add_scalar("lr", 0.1, step)
        log.close()
        trace = read_trace(tmp_path / "run")
        assert set(trace.tasks) == set(TASKS)
        same_to_float32(trace.grad_norms[:, trace.tasks.index("RUL")], norms[1:6, 0])

    def test_steps_from_zero_are_moved_by_one(self, writer, tmp_path):
        log = writer()
        for step in range(3):
            for task in TASKS:
                log.add_scalar(f"grad_norm/{task}", 1.0 + step, step)
        log.close()
        assert read_trace(tmp_path / "run").step.tolist() == [1, 2, 3]

    def test_a_run_continued_from_a_checkpoint_replaces_its_end(self, writer, tmp_path):
        for part, first, value in (("1", 1, 1.0), ("2", 6, 2.0)):
            log = writer(filename_suffix=part)
            for step in range(first, 11):
                for task in TASKS:
                    log.add_scalar(f"grad_norm/{task}", value, step)
            log.close()
        trace = read_trace(tmp_path / "run")
        assert trace.step.tolist() == list(range(1, 11))
        assert trace.grad_norms[:, 0].tolist() == [1.0] * 5 + [2.0] * 5

    def test_several_runs_are_named(self, writer, tmp_path):
        for name in ("runs/a", "runs/b"):
            log = writer(name)
            for task in TASKS:
                log.add_scalar(f"grad_norm/{task}", 1.0, 1)
            log.close()
        with pytest.raises(InputError, match=r"several runs \(a, b\)"):
            read_trace(tmp_path / "runs")
        assert len(read_trace(tmp_path / "runs" / "a")) == 1

    def test_other_names_are_mapped(self, writer, tmp_path, capsys):
        log = writer()
        for step in range(1, 4):
            log.add_scalar("train/gn0", 250.0, step)
            log.add_scalar("train/gn1", 0.5, step)
        log.close()
        with pytest.raises(InputError, match="--column grad_norm_rul=NAME"):
            read_trace(tmp_path / "run")
        out = tmp_path / "run.parquet"
        code = main(
            [
                *("trace", "convert", str(tmp_path / "run"), "-o", str(out)),
                *("--column", "grad_norm_rul=train/gn0"),
                *("--column", "grad_norm_health=train/gn1"),
            ]
        )
        assert code == 0
        assert "3 steps" in capsys.readouterr().out
        assert read_trace(out).grad_norms.tolist() == [[250.0, 0.5]] * 3
        assert (
            main(["trace", "convert", str(tmp_path / "run"), "-o", str(out), "--column", "x"]) == 2
        )
        assert "no COLUMN=NAME" in capsys.readouterr().err

    def test_a_cut_file_keeps_what_is_whole_and_a_damaged_one_is_refused(self, writer, tmp_path):
        log = writer()
        for step in range(1, 21):
            for task in TASKS:
                log.add_scalar(f"grad_norm/{task}", 1.0, step)
        log.close()
        file = next((tmp_path / "run").glob("events*"))
        data = file.read_bytes()
        assert read_trace(tmp_path / "run").step[-1] == 20
        for cut in (5, 13, 40):  # inside the last record, whose step then lacks its second task
            file.write_bytes(data[:-cut])
            trace = read_trace(tmp_path / "run")
            assert trace.truncated
            assert trace.step.tolist() == list(range(1, 20))
        for at in (len(data) // 2, len(data) // 2 + 9, len(data) // 2 + 21, len(data) // 2 + 33):
            bad = bytearray(data)
            bad[at] ^= 0x55
            file.write_bytes(bytes(bad))
            with pytest.raises(InputError, match="damaged") as refused:
                read_trace(tmp_path / "run")
            assert "\n" not in str(refused.value)

    def test_tensors_of_the_second_summary_format(self, tmp_path):
        pytest.importorskip("tensorboard")
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.scalar.summary import scalar_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        log = EventFileWriter(str(tmp_path))
        for step in (1, 2):
            for i, task in enumerate(TASKS):
                event = event_pb2.Event(
                    step=step,
                    wall_time=100.0 + step,
                    summary=scalar_pb(f"grad_norm/{task}", i + step),
                )
                log.add_event(event)
        log.close()
        trace = read_trace(tmp_path)
        assert trace.grad_norms.tolist() == [[1.0, 2.0], [2.0, 3.0]]
        assert trace.wall_time.tolist() == [0.0, 1.0]

    def test_commands_take_the_folder(self, writer, tmp_path, capsys, norms):
        log = writer()
        for step, row in enumerate(norms, start=1):
            for task, value in zip(TASKS, row, strict=True):
                log.add_scalar(f"grad_norm/{task}", value, step)
        log.close()
        folder = str(tmp_path / "run")
        assert main(["trace", "info", folder]) == 0
        assert "tensorboard" in capsys.readouterr().out
        assert main(["check", folder]) == 0
        assert "no weights to compare" in capsys.readouterr().out


def history(norms, first=0):
    """Rows as W&B gives them: keys in its order, a row for each call of ``log``."""
    return [
        {
            "_runtime": 0.5 * i,
            "_step": i,
            "_timestamp": 1.7e9 + i,
            "epoch": i // 10,
            "grad_norm/RUL": float(a),
            "grad_norm/health": float(b),
            "loss/RUL": 5.0 + i,
            "loss/health": 1.0,
            "note": "text",
        }
        for i, (a, b) in enumerate(norms, start=first)
    ]


def write_export(rows: list[dict], kind: str, folder: Path) -> Path:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(rows)
    path = folder / f"history.{'json' if kind.startswith('json-') else kind}"
    if kind == "csv":
        frame.to_csv(path)
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "json-columns":
        frame.to_json(path, double_precision=15)
    elif kind == "json-records":
        frame.to_json(path, orient="records", double_precision=15)
    else:
        path.write_text(json.dumps(rows, indent=1))
    return path


KINDS = ("csv", "parquet", "jsonl", "json-columns", "json-records", "json-indented")


class TestWandb:
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_export(self, kind, tmp_path, norms):
        trace = read_trace(write_export(history(norms), kind, tmp_path))
        assert trace.tasks == TASKS
        np.testing.assert_allclose(trace.grad_norms, norms, rtol=1e-13)
        assert trace.step.tolist() == list(range(1, 301))
        assert trace.losses[7].tolist() == [12.0, 1.0]
        assert trace.wall_time[4] == 2.0
        assert trace.spec is None
        assert [len(piece) for piece in iter_trace(tmp_path / f"{next(tmp_path.iterdir()).name}")]

    @pytest.mark.parametrize("kind", KINDS)
    def test_rows_of_other_metrics_make_no_steps(self, kind, tmp_path):
        rows = history(np.ones((6, 2)))
        for i in (0, 3):
            for key in list(rows[i]):
                if "/" in key:
                    del rows[i][key]
        trace = read_trace(write_export(rows, kind, tmp_path))
        assert trace.step.tolist() == [2, 3, 5, 6]
        assert trace.measured.all()

    def test_the_frameworks_own_step_is_preferred(self, tmp_path):
        rows = [
            {"_step": i, "train/global_step": 50 * (i + 1), "grad_norm/a": 2.0, "grad_norm/b": 1.0}
            for i in range(3)
        ]
        assert read_trace(write_export(rows, "csv", tmp_path)).step.tolist() == [50, 100, 150]

    def test_a_charts_export(self, tmp_path):
        path = tmp_path / "chart.csv"
        path.write_text(
            '"Step","sunny-1 - grad_norm/RUL","sunny-1 - grad_norm/RUL__MIN",'
            '"sunny-1 - grad_norm/RUL__MAX","sunny-1 - grad_norm/health"\n'
            '"1","250","240","260","0.5"\n"2","300","1","999","0.4"\n'
        )
        trace = read_trace(path)
        assert trace.tasks == TASKS
        assert trace.grad_norms.tolist() == [[250.0, 0.5], [300.0, 0.4]]

    def test_nan_is_a_reading_and_null_is_none(self, tmp_path):
        path = tmp_path / "h.jsonl"
        path.write_text(
            '{"_step": 1, "grad_norm/a": "NaN", "grad_norm/b": 1}\n'
            '{"_step": 2, "grad_norm/a": null, "grad_norm/b": null, "loss/a": 1, "loss/b": 2}\n'
            '{"_step": 3, "grad_norm/a": "Infinity", "grad_norm/b": 1}\n'
        )
        trace = read_trace(path)
        assert trace.measured.tolist() == [True, False, True]
        assert np.isnan(trace.grad_norms[0, 0])
        assert trace.grad_norms[2, 0] == np.inf

    @pytest.mark.parametrize(
        ("name", "text", "said"),
        [
            ("a.json", "{", "not valid JSON"),
            ("a.json", "[1, 2]", "no history"),
            ("a.json", "[" * 100_000, "not valid JSON"),
            ("a.jsonl", '{"_step": 1}\n[]\n', "no JSON object"),
            ("a.jsonl", '{"_step": 1, "loss/a": 1}\n{"_step": 2}\n', "no column grad_norm/<task>"),
            ("a.jsonl", '{"grad_norm/a": 1, "grad_norm/b": true}\n', "1 task"),
            (
                "a.jsonl",
                '{"grad_norm/a": 1, "grad_norm/b": 1}\n{"grad_norm/a": "x"}\n',
                "'x' is no",
            ),
            ("a.jsonl", '{"_step": 0.5, "grad_norm/a": 1, "grad_norm/b": 1}\n', "no whole number"),
            ("a.jsonl", '{"_step": -1, "grad_norm/a": 1, "grad_norm/b": 1}\n', "counted from 0"),
            ("a.csv", "_step,u/grad_norm/a,v/grad_norm/b\n1,2,3\n", "under several names"),
            ("a.csv", "_step,grad_norm/a,grad_norm/b\n1,2,x\n", "line 2, column grad_norm/b: 'x'"),
            ("a.csv", "_step,grad_norm/a\n1,2\n", "1 task"),
            ("a.csv", "_step,grad_norm/a,grad_norm/b\n", "no value"),
            ("a.csv", "_step,grad_norm/a,grad_norm/b\n1,-2,3\n", "norms are >= 0"),
            ("a.csv", "_step,grad_norm/a,grad_norm/b\n1,2,\n", "is missing at step 1"),
        ],
    )
    def test_refusals_are_one_line(self, name, text, said, tmp_path):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=said) as refused:
            read_trace(tmp_path / name)
        assert "\n" not in str(refused.value)
        assert name in str(refused.value)

    def test_a_parquet_column_of_text_is_refused(self, tmp_path):
        rows = [{"_step": 1, "grad_norm/a": "x", "grad_norm/b": 1.0}]
        with pytest.raises(InputError, match="export numbers"):
            read_trace(write_export(rows, "parquet", tmp_path))

    def test_a_given_name_must_be_there(self, tmp_path):
        path = write_export(history(np.ones((2, 2))), "csv", tmp_path)
        with pytest.raises(InputError, match="has no 'nothing'"):
            read_trace(path, columns={"grad_norm_a": "nothing"})
        with pytest.raises(InputError, match="no column of a trace"):
            read_trace(path, columns={"gradient_a": "grad_norm/RUL"})


def test_a_log_of_every_fiftieth_step_gets_the_same_verdict(tmp_path):
    """The estimate keeps the average's pace: a sparse log must not look unsaturated."""
    full = load_bundled("fd001-gaba")
    truth = saturation(full)
    keep = full.step % 50 == 0
    rows = [
        {"_step": int(step), **{f"grad_norm/{t}": x for t, x in zip(full.tasks, g, strict=True)}}
        for step, g, seen in zip(full.step, full.grad_norms, full.measured, strict=True)
        if keep[step - full.step[0]] and seen
    ]
    found = saturation(read_trace(write_export(rows, "jsonl", tmp_path)), full.spec)
    assert found.unrecorded_readings > 100
    assert "estimate" in str(found)
    assert found.pinned_fraction == pytest.approx(truth.pinned_fraction, abs=0.08)
    assert found.verdict.split(":")[0] == truth.verdict.split(":")[0]


def test_a_log_continued_from_a_checkpoint_replaces_what_came_after_it(tmp_path):
    """Steps 1 to 10, then again from 6, to 8: 9 and 10 were never part of the run that stands."""
    rows = [(step, 100.0 + step) for step in range(1, 11)]
    rows += [(step, 200.0 + step) for step in range(6, 9)]
    file = tmp_path / "run.jsonl"
    file.write_text(
        "".join(
            json.dumps({"step": s, "grad_norm/RUL": a, "grad_norm/health": 1.0}) + "\n"
            for s, a in rows
        )
    )
    trace = read_trace(file)
    assert trace.step.tolist() == list(range(1, 9))
    assert trace.grad_norms[:, 0].tolist() == [101, 102, 103, 104, 105, 206, 207, 208]


@pytest.mark.parametrize("missing", [(), ("val/loss/RUL",), ("loss/health",)])
def test_of_two_losses_of_a_task_that_beside_the_norm_is_taken(tmp_path, missing):
    row = {
        "step": 1,
        "train/grad_norm/RUL": 3.0,
        "train/grad_norm/health": 1.0,
        "train/loss/RUL": 5.0,
        "train/loss/health": 6.0,
        "val/loss/RUL": 7.0,
        "val/loss/health": 8.0,
    }
    missing = {f"train/{m}" if m == "loss/health" else m for m in missing}
    row = {name: value for name, value in row.items() if name not in missing}
    file = tmp_path / "run.jsonl"
    file.write_text(json.dumps(row) + "\n")
    losses = read_trace(file).losses
    # The only other one stands in where the task has none beside its norm.
    assert losses.tolist() == [[5.0, 8.0 if "train/loss/health" in missing else 6.0]]


def test_losses_of_some_tasks_alone_are_left_out(tmp_path):
    file = tmp_path / "run.jsonl"
    row = {"step": 1, "grad_norm/RUL": 3.0, "grad_norm/health": 1.0, "loss/RUL": 5.0}
    file.write_text(json.dumps(row) + "\n")
    trace = read_trace(file)
    assert trace.grad_norms.tolist() == [[3.0, 1.0]]
    assert trace.losses is None


class TestTheOwnLogOfWandb:
    #: The first bytes of one written by wandb 0.31.
    START = bytes.fromhex("3a572642e1be00f5e104984d00010801c20c0a0a086f63357262")

    @pytest.fixture
    def log(self, tmp_path):
        folder = tmp_path / "offline-run-1-oc5rbopg"
        folder.mkdir()
        file = folder / "run-oc5rbopg.wandb"
        file.write_bytes(self.START)
        return file

    def test_the_file_and_its_folder_are_refused_with_the_export_to_make(self, log):
        for given in (log, log.parent):
            with pytest.raises(InputError, match=r"wandb\.Api\(\)\.run\('ENTITY/PROJECT/oc5rbopg'"):
                read_trace(given)

    def test_a_name_is_no_code(self, log):
        other = log.rename(log.with_name("run-x');evil('.wandb"))
        with pytest.raises(InputError) as refused:
            read_trace(other)
        assert "PROJECT/RUN_ID')" in str(refused.value)

    def test_the_command_it_names_makes_a_readable_export(self, log, tmp_path, norms):
        with pytest.raises(InputError) as refused:
            read_trace(log)
        command = str(refused.value).split('python -c "')[1].split('" > run.jsonl')[0]
        rows = [
            {"_step": i, "grad_norm/RUL": a, "grad_norm/health": b}
            for i, (a, b) in enumerate(norms.tolist())
        ]
        (tmp_path / "wandb.py").write_text(
            "class Api:\n"
            "    def run(self, path):\n"
            "        assert path == 'ENTITY/PROJECT/oc5rbopg'\n"
            "        return self\n"
            f"    def scan_history(self):\n        return {rows!r}\n"
        )
        export = tmp_path / "run.jsonl"
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        with export.open("w") as out:
            subprocess.run([sys.executable, "-c", command], env=environment, stdout=out, check=True)
        np.testing.assert_array_equal(read_trace(export).grad_norms, norms)
