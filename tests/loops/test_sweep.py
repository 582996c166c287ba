"""Sweeps: the same numbers on every engine, nothing lost or doubled by a crash."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.control.linear import open_loop
from gabactl.law.spec import GabaSpec
from gabactl.loops.sweeps import load_sweep, open_sweep, run_sweep
from gabactl.loops.sweeps.result import part_file
from gabactl.plants import LogRatio

GRID = """
title = "test"

[disturbance]
kind = "levels"
ratios = [4]
holds = [{steps}]

[axes]
beta = {{ from = 0.5, to = 0.99, points = 16, scale = "log1m" }}
rho = {{ from = -3, to = 1.3, points = 16 }}
noise = [0.0, 0.3]

[fixed]
warmup = 5
a = 0.3
delay = 1

[run]
seed = 7
repeats = {repeats}
chunk = {chunk}
"""


def write_grid(folder: Path, steps: int = 400, repeats: int = 1, chunk: int = 100) -> Path:
    file = folder / "grid.toml"
    file.write_text(GRID.format(steps=steps, repeats=repeats, chunk=chunk))
    return file


def same(a, b) -> None:
    left, right = a.table(), b.table()
    assert left.column_names == right.column_names
    for name in left.column_names:
        np.testing.assert_array_equal(left[name].to_numpy(), right[name].to_numpy(), err_msg=name)


def whole(result) -> None:
    """Every loop once, in order."""
    loops = result.table(["loop"])["loop"].to_numpy()
    np.testing.assert_array_equal(loops, np.arange(result.manifest["loops"]))


def test_chunk_size_and_workers_do_not_matter(tmp_path):
    sweep = load_sweep(write_grid(tmp_path))
    one = run_sweep(sweep, tmp_path / "one", workers=1)
    whole(one)
    odd = dataclasses.replace(sweep, chunk=77)
    same(one, run_sweep(odd, tmp_path / "odd", workers=1))


def test_resume_computes_only_what_is_missing(tmp_path):
    sweep = load_sweep(write_grid(tmp_path))
    first = run_sweep(sweep, tmp_path / "out", workers=1)
    reference = first.table()
    kept = part_file(tmp_path / "out", 0)
    written = kept.stat().st_mtime_ns
    part_file(tmp_path / "out", 2).unlink()
    with pytest.raises(InputError, match="1 of 6 chunks are missing"):
        open_sweep(tmp_path / "out")
    again = run_sweep(sweep, tmp_path / "out", workers=1, resume=True)
    assert again.table().equals(reference)
    assert kept.stat().st_mtime_ns == written


def test_a_folder_is_never_mixed(tmp_path):
    sweep = load_sweep(write_grid(tmp_path))
    run_sweep(sweep, tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="--resume"):
        run_sweep(sweep, tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="seed differs"):
        run_sweep(dataclasses.replace(sweep, seed=8), tmp_path / "out", workers=1, resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(InputError, match="is not empty"):
        run_sweep(sweep, tmp_path / "full", workers=1)


def test_simulated_boundary_is_the_analytic_one(tmp_path):
    # One grid step of rho is 0.29: every point whose pole is 1 % off the circle must agree.
    sweep = load_sweep(write_grid(tmp_path, steps=1500))
    table = run_sweep(sweep, tmp_path / "out", workers=1).table(["beta", "rho", "noise", "stable"])
    checked = 0
    for beta, rho, noise, stable in zip(
        *(table[n].to_pylist() for n in table.column_names), strict=True
    ):
        if noise:
            continue
        loop = open_loop(GabaSpec(beta=beta, floor=0.0), LogRatio(rho, a=0.3, delay=1))
        if abs(loop.closed.radius - 1) > 1e-3:
            assert stable == loop.closed.stable, (beta, rho, loop.closed.radius)
            checked += 1
    assert checked > 230


def test_sobol_points_do_not_depend_on_the_chunk(tmp_path):
    file = tmp_path / "sobol.toml"
    file.write_text(
        '[disturbance]\nkind = "none"\nsteps = 10\n[axes]\nbeta = { from = 0.5, to = 0.9 }\n'
        'interval = { from = 1, to = 20 }\n[run]\nmethod = "sobol"\nsamples = 256\nchunk = 64\n'
    )
    sweep = load_sweep(file)
    all_at_once = sweep.parameters(0, 256)
    in_parts = [sweep.parameters(n, 32) for n in range(0, 256, 32)]
    for name, values in all_at_once.items():
        np.testing.assert_array_equal(values, np.concatenate([p[name] for p in in_parts]))
    assert np.all(all_at_once["interval"] == np.round(all_at_once["interval"]))
    assert 0.5 <= all_at_once["beta"].min() < all_at_once["beta"].max() <= 0.9


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[axes]", "[axis]"), ["unknown key 'axis'", "axes"]),
        (
            ("beta = { from = 0.5, to = 0.99", "beta = { from = 0.5, to = 1.0"),
            ["axes.beta", "below 1"],
        ),
        (("noise = [0.0, 0.3]", "noise = [0.0, -0.3]"), ["noise = -0.3", "[0, 1000]"]),
        (("noise = [0.0, 0.3]", "noise = [0.0, nan]"), ["axes.noise", "finite"]),
        (("ratios = [4]", "ratios = [nan]"), ["disturbance", "ratio = nan"]),
        (("a = 0.3", "gain = 0.3"), ["unknown key 'gain'", "[fixed]"]),
        (("warmup = 5", "warmup = 5.5"), ["warmup = 5.5", "whole numbers"]),
        (("seed = 7", "seed = -7"), ["run.seed = -7", ">= 0"]),
        (("delay = 1", "delay = -1"), ["delay = -1"]),
        (("delay = 1", 'law = "quadratic"'), ["law", "quadratic", "complement"]),
    ],
)
def test_bad_sweeps_name_file_key_and_remedy(tmp_path, change, words):
    file = write_grid(tmp_path)
    text = file.read_text()
    assert change[0] in text
    file.write_text(text.replace(*change))
    with pytest.raises(InputError) as caught:
        load_sweep(file)
    message = str(caught.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    for word in words:
        assert word in message, message


def test_heat_map_draws_the_boundary(tmp_path):
    ax = run_sweep(load_sweep(write_grid(tmp_path)), tmp_path / "out", workers=1).plot(
        value="stable"
    )
    assert ax.get_legend() is not None
    x, y, means = open_sweep(tmp_path / "out").grid("beta", "rho", "stable")
    assert means.shape == (len(y), len(x)) == (16, 16)
    assert set(np.unique(means)) == {0.0, 1.0}


def drive(grid: Path, folder: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "gabactl", "sweep", str(grid), "-o", str(folder), *options]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def parts(folder: Path) -> int:
    return len(list((folder / "parts").glob("chunk-*.parquet"))) if folder.exists() else 0


def wait_for_parts(folder: Path, process: subprocess.Popen, least: int) -> None:
    deadline = time.monotonic() + 240
    while parts(folder) < least:
        if process.poll() is not None:
            error = process.stderr.read().decode()
            pytest.fail(f"the sweep ended with {process.returncode} before {least} parts: {error}")
        assert time.monotonic() < deadline, "no parts after 240 s"
        time.sleep(0.02)


def children(pid: int) -> list[int]:
    """Descendants of a process that run joblib's worker loop."""
    out = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if int(fields[1]) == pid and "loky" in line and "resource_tracker" not in line:
                out.append(int(entry.name))
    return out


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="finds worker processes through /proc")
def test_killed_worker_and_killed_driver_lose_and_double_nothing(tmp_path):
    grid = write_grid(tmp_path, steps=3000, repeats=40, chunk=512)
    sweep = load_sweep(grid)
    # A worker dies: the sweep goes on by itself.
    folder = tmp_path / "out"
    process = drive(grid, folder)
    wait_for_parts(folder, process, 3)
    workers = children(process.pid)
    assert workers, "no worker process was found"
    os.kill(workers[0], signal.SIGKILL)
    wait_for_parts(folder, process, 8)
    # The driver dies (and with it all its processes).
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = sweep.chunks - parts(folder)
    assert left > 0, "the sweep was done before the driver was killed"
    with pytest.raises(InputError, match="missing"):
        open_sweep(folder)
    # Go on.
    process = drive(grid, folder, "--resume")
    assert process.wait(timeout=500) == 0, process.stderr.read().decode()
    result = open_sweep(folder)
    whole(result)
    same(result, run_sweep(sweep, tmp_path / "reference", workers=1))
    assert not list((folder / "parts").glob("*.parquet.*"))


def test_what_killed_workers_left_is_removed_and_what_live_ones_write_is_not(tmp_path):
    sweep, folder = load_sweep(write_grid(tmp_path)), tmp_path / "out"
    run_sweep(sweep, folder, workers=1)
    parts = folder / "parts"
    script = (
        "import sys, time\nfrom gabactl.base.files import whole_file\n"
        "with whole_file(sys.argv[1]) as file:\n    print(file.name, flush=True)\n    time.sleep(60)\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(parts / f"chunk-{n}.parquet")],
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in (1, 2)
    ]
    killed, living = (Path(writer.stdout.readline().strip()).name for writer in writers)
    writers[0].kill()
    writers[0].wait()
    old = time.time() - 3600
    names = {
        killed: False,
        living: True,
        ".chunk-1.parquet.else.where.7.tmp": True,
        ".chunk-2.parquet.else.where.7.tmp": False,
    }
    for name in list(names)[2:]:
        (parts / name).touch()
    os.utime(parts / ".chunk-2.parquet.else.where.7.tmp", (old, old))
    run_sweep(sweep, folder, workers=1, resume=True)
    there = {name: (parts / name).exists() for name in names}
    writers[1].kill()
    assert there == names


MILLION = """
title = "a million loops"

[disturbance]
kind = "levels"
ratios = [4]
holds = [20]

[axes]
beta = { from = 0.5, to = 0.99, points = 100, scale = "log1m" }
rho = { from = -3, to = 1.3, points = 100 }
noise = [0.0, 0.3]

[fixed]
warmup = 0

[run]
repeats = 50
chunk = 131072
stability = false
"""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["dask", "ray"])
def test_clusters_give_the_same_content(tmp_path, engine):
    pytest.importorskip("distributed" if engine == "dask" else "ray", reason=f"{engine} is absent")
    if engine == "ray" and not tempfile.gettempdir().isascii():
        pytest.skip("ray takes no folder of temporary files with other letters than ASCII's")
    (tmp_path / "grid.toml").write_text(MILLION)
    sweep = load_sweep(tmp_path / "grid.toml")
    assert sweep.loops == 10**6
    local = run_sweep(sweep, tmp_path / "local", workers=1)
    result = run_sweep(sweep, tmp_path / engine, engine=engine, workers=2)
    whole(result)
    same(result, local)
    for n in range(sweep.chunks):
        assert part_file(local.folder, n).read_bytes() == part_file(result.folder, n).read_bytes()


def test_manifest_is_strict_json(tmp_path):
    result = run_sweep(load_sweep(write_grid(tmp_path)), tmp_path / "out", workers=1)
    text = (tmp_path / "out" / "manifest.json").read_text()
    manifest = json.loads(text, parse_constant=pytest.fail)
    assert manifest["loops"] == 512
    json.loads(result.to_json(), parse_constant=pytest.fail)
    assert "settling_weights" in str(result)


def test_a_sweep_with_pytorch_is_the_compiled_one_to_rounding(tmp_path):
    pytest.importorskip("torch")
    from gabactl.cli import main

    grid = write_grid(tmp_path, steps=60, chunk=256)
    compiled = run_sweep(load_sweep(grid), tmp_path / "compiled", workers=1).table()
    there = tmp_path / "torch"
    call = ["sweep", str(grid), "-o", str(there), "--workers", "1", "--device", "cpu"]
    assert main(call) == 0
    torch = open_sweep(there).table()
    assert torch.num_rows == compiled.num_rows == 512
    assert torch.column_names == compiled.column_names
    # Growth compares peaks late and early: of a settled loop those are rounding alone.
    for name in set(compiled.column_names) - {"growth"}:
        a, b = torch[name].to_numpy(), compiled[name].to_numpy()
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12, err_msg=name)
    # The device is one of the settings: another run does not go on in this folder by mistake.
    assert json.loads((there / "manifest.json").read_text()) != json.loads(
        (tmp_path / "compiled" / "manifest.json").read_text()
    )
