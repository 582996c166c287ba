"""Long recordings pass through in bounded memory where they are streamed; else they are refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("long_trace.py")
RECORD = Path(__file__).parents[2] / "simulations" / "results" / "long_traces.json"
STEPS = 300_000


def _run(*words: object) -> tuple[int, int]:
    """Rows and peak MiB of a process of its own."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=True
    )
    assert "exit code" not in done.stdout or "exit code 0" in done.stdout, done.stderr
    rows, peak = re.search(r"rows (\d+) peak (\d+) MiB", done.stdout).groups()
    return int(rows), int(peak)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    """A short recording, and one ten times as long."""
    folder = tmp_path_factory.mktemp("long")
    for steps in (STEPS // 10, STEPS):
        _run("write", folder / f"{steps}.parquet", steps)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("stream",),
        ("command", "report", "--saturation-only"),
        ("command", "check", "--replay-only"),
    ],
    ids=lambda words: words[-1],
)
def test_what_streams_takes_no_more_for_ten_times_the_steps(traces, words):
    """270,000 more steps are 150 MiB when held, at half a kilobyte each."""
    peaks = [_run(*words, traces / f"{steps}.parquet")[1] for steps in (STEPS // 10, STEPS)]
    # A piece of 65,536 rows and its replay; the numbers held for the medians (8 MiB a series).
    assert peaks[1] - peaks[0] < 80, peaks
    assert peaks[1] < 400, peaks


def test_the_record_of_ten_million_steps_is_bounded():
    """Made by ``python benchmarks/long_traces.py``."""
    rows = json.loads(RECORD.read_text())["rows"]
    longest = {row["command"]: row for row in rows if row["steps"] == 10_000_000}
    assert {"iter_trace", "report --saturation-only", "check --replay-only"} <= set(longest)
    for name, row in longest.items():
        assert row["streams"], name
        # The numbers alone are 720 MB.
        assert row["peak_mib"] < 500, name


def test_more_than_can_be_held_is_refused(tmp_path, monkeypatch):
    from gabactl.base.errors import InputError
    from gabactl.traces import read_trace, reader

    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import long_trace

    long_trace.write(tmp_path / "run.parquet", 1000)
    monkeypatch.setattr(reader, "MAX_CELLS", 5_000)
    with pytest.raises(InputError, match=r"declares 9000 numbers .* more than the 5000"):
        read_trace(tmp_path / "run.parquet")
