"""Coverage-guided fuzzing of the trace readers with atheris (libFuzzer for Python).

A reader may refuse a file only by :class:`gabactl.InputError`; any other exception, a crash, a
hang or too much memory is a finding. atheris is optional: ``pip install atheris``.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gabactl.base.errors import MissingPackage
from gabactl.base.results import Result

_MEMORY_MIB = 2048
_HANG_S = 20


@dataclass(frozen=True)
class ReaderFuzz(Result):
    """What a run over the readers found.

    Attributes
    ----------
    executions : int
        Files read.
    edges : int
        Edges of the readers' code covered.
    seconds : float
        Time given.
    finding : str
        The exception, or empty.
    witness : str or None
        The file that causes it.
    seed : int
        Of libFuzzer.
    """

    executions: int
    edges: int
    seconds: float
    finding: str
    witness: str | None
    seed: int

    title = "Trace readers"

    @property
    def violated(self) -> bool:
        """Whether a file broke a reader."""
        return bool(self.finding)

    @property
    def verdict(self) -> str:
        """In a word, violated or held."""
        return "violated" if self.violated else "held"

    def facts(self) -> dict[str, Any]:
        """Keys: executions, edges, seconds, finding, witness, seed."""
        return {
            "target": "readers",
            "verdict": self.verdict,
            **super().facts(),
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Verdict, files read and code covered."""
        out: list[tuple[str, ...]] = [
            ("verdict", self.verdict),
            ("files read", f"{self.executions:,} in {self.seconds:g} s"),
            ("edges covered", f"{self.edges:,}"),
            ("seed", str(self.seed)),
        ]
        if self.violated:
            out += [("finding", self.finding), ("file", str(self.witness))]
        return out


def seed_files(folder: str | Path) -> list[Path]:
    """Small valid traces of every format, to start from.

    Parameters
    ----------
    folder : path
        Where to write them.

    Examples
    --------
    >>> [file.suffix for file in seed_files(tempfile.mkdtemp())]
    ['.csv', '.parquet', '.arrows']
    """
    from gabactl.traces import Trace, TraceWriter, write_csv, write_parquet

    root = Path(folder)
    trace = Trace.from_arrays([[250.0, 0.5], [float("nan"), float("nan")], [300.0, 0.4]])
    csv, parquet = root / "seed.csv", root / "seed.parquet"
    write_csv(trace, csv)
    write_parquet(trace, parquet)
    stream = root / "seed.arrows"
    with TraceWriter(stream, trace.tasks, groups=["grad_norm"]) as writer:
        for step, norms in enumerate(trace.grad_norms.tolist(), start=1):
            row = {f"grad_norm_{task}": [x] for task, x in zip(trace.tasks, norms, strict=True)}
            writer.append({"step": [step], "wall_time": [0.1 * step], **row})
    return [csv, parquet, stream]


def fuzz_readers(
    time_limit: float = 60.0, seed: int = 0, corpus: str | Path = ".gabactl/corpus"
) -> ReaderFuzz:
    """Run the coverage-guided fuzzer for some time.

    Parameters
    ----------
    time_limit : float
        Seconds to run.
    seed : int
        Of libFuzzer.
    corpus : path
        Inputs that reach new code are kept in its folder ``readers`` and tried first next time.

    Raises
    ------
    MissingPackage
        atheris is not installed.

    Examples
    --------
    It needs the package atheris, and a process of its own:

    >>> fuzz_readers(time_limit=60).violated  # doctest: +SKIP
    False
    """
    if importlib.util.find_spec("atheris") is None:
        raise MissingPackage("atheris", "fuzzing the readers, guided by coverage,")
    kept = Path(corpus) / "readers"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder)
        seed_files(seeds)
        command = [
            sys.executable, "-m", "gabactl.fuzzing._reader_target", str(kept), str(seeds),
            f"-max_total_time={max(1, round(time_limit))}", f"-seed={seed + 1}", "-max_len=65536",
            f"-rss_limit_mb={_MEMORY_MIB}", f"-timeout={_HANG_S}", "-print_final_stats=1",
            f"-artifact_prefix={kept}/crash-",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    return _read_log(done.stdout + done.stderr, done.returncode, time_limit, seed)


def _read_log(log: str, code: int, seconds: float, seed: int) -> ReaderFuzz:
    executions = re.findall(r"number_of_executed_units:\s*(\d+)", log) or re.findall(
        r"^#(\d+)", log, re.M
    )
    edges = re.findall(r"\bcov: (\d+)", log)
    artifact = re.findall(r"Test unit written to (\S+)", log)
    finding = ""
    if artifact or code != 0:
        python = re.findall(r"^\S*(?:Error|Exception|Exit|Interrupt)\b.*$", log, re.M)
        summary = re.findall(r"^(?:SUMMARY|ERROR|==\d+== ?ERROR): .*$", log, re.M)
        finding = (python or summary or [f"the reader's process ended with code {code}"])[0]
    return ReaderFuzz(
        int(executions[-1]) if executions else 0,
        int(edges[-1]) if edges else 0,
        seconds,
        finding.strip(),
        artifact[0] if artifact else None,
        seed,
    )
