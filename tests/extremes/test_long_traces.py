"""Recordings of ten million steps pass through in bounded memory where they are streamed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("long_trace.py")


def _run(*words: object) -> tuple[int, int]:
    """Rows and peak MiB of a process of its own."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)], capture_output=True, text=True, check=True
    )
    rows, peak = re.search(r"rows (\d+) peak (\d+) MiB", done.stdout).groups()
    return int(rows), int(peak)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_ten_million_steps_are_streamed_in_bounded_memory(tmp_path):
    trace = tmp_path / "long.parquet"
    assert _run("write", trace, 10_000_000)[1] < 400
    rows, peak = _run("stream", trace)
    assert rows == 10_000_000
    # The rows alone are 720 MB; measured: 158 MiB, most of it the libraries. It was 721 MiB while
    # pyarrow buffered ahead.
    assert peak < 400


@pytest.mark.slow
def test_what_holds_all_at_once_takes_half_a_kilobyte_a_step(tmp_path):
    """``validate`` reads the whole trace: 680 MiB for a million steps of two tasks."""
    trace = tmp_path / "million.parquet"
    _run("write", trace, 1_000_000)
    assert _run("command", "validate", trace, "--replay-only")[1] < 1000


def test_more_than_can_be_held_is_refused(tmp_path, monkeypatch):
    from gabactl.errors import InputError
    from gabactl.traces import read_trace, reader

    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import long_trace

    long_trace.write(tmp_path / "run.parquet", 1000)
    monkeypatch.setattr(reader, "MAX_CELLS", 5_000)
    with pytest.raises(InputError, match=r"declares 9000 numbers .* more than the 5000"):
        read_trace(tmp_path / "run.parquet")
