"""The fault matrix: for every part and every fault, what is kept, said and resumed, and the tests.

``python tests/faults/matrix.py`` writes ``docs/faults.md`` from this table and from the record of
the hostile inputs; a test holds the page against both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "faults.md"
RECORD = ROOT / "simulations" / "results" / "hostile_inputs.json"

PARTS = ("recorder", "train", "campaign", "sweep", "fuzz corpus", "report", "dashboard")
FAULTS = (
    "kill -9",
    "SIGTERM",
    "Ctrl-C",
    "disk full",
    "folder not writable",
    "input vanished",
    "two processes",
    "clock jumps",
    "out of memory",
)

_R = "tests/faults/test_faults_recorder.py::"
_T = "tests/faults/test_faults_train.py::"
_C = "tests/faults/test_faults_campaign.py::"
_E = "tests/campaign/test_campaign_engine.py::"
_S = "tests/faults/test_faults_sweep.py::"
_F = "tests/faults/test_faults_files.py::"
_FILES = "tests/traces/test_recording_files.py::"
_SERVER = "tests/e2e/test_dashboard_server.py::"


@dataclass(frozen=True)
class Cell:
    """One part under one fault.

    Attributes
    ----------
    part, fault : str
        Of ``PARTS`` and ``FAULTS``.
    kept, said, resumes : str
        What is on the disk afterwards, what the user is told, and how it goes on.
    tests : tuple of str
        Tests that stage it; none where there is nothing to stage.
    """

    part: str
    fault: str
    kept: str
    said: str
    resumes: str
    tests: tuple[str, ...]


def _cell(part: str, fault: str, kept: str, said: str, resumes: str, *tests: str) -> Cell:
    return Cell(part, fault, kept, said, resumes, tests)


CELLS: tuple[Cell, ...] = (
    # -- recorder --------------------------------------------------------------------------------
    _cell("recorder", "kill -9", "every flushed row, in run.arrows", "nothing; the trace reads as truncated", "TraceRecorder(resume=True) drops a partial tail", _R + "test_signals_keep_every_flush", _FILES + "test_kill_dash_nine_keeps_every_flush", _FILES + "test_a_cut_at_every_byte_gives_whole_batches_or_one_line"),
    _cell("recorder", "SIGTERM", "every flushed row", "nothing, unless the program catches it", "as after kill -9", _R + "test_signals_keep_every_flush"),
    _cell("recorder", "Ctrl-C", "every logged row: leaving the with block flushes", "the program's own", "as after kill -9", _R + "test_signals_keep_every_flush", "tests/nn/test_recorder.py::test_an_exception_in_the_loop_still_flushes"),
    _cell("recorder", "disk full", "every row before; pending rows stay in memory", "cannot append (No space left on device): everything up to step N is safe; free some space and resume", "the next flush writes the pending rows, or resume", _R + "test_a_disk_that_is_really_full", _FILES + "test_a_full_disk_is_one_line_and_loses_nothing", _FILES + "test_a_full_disk_when_finishing_keeps_the_stream"),
    _cell("recorder", "folder not writable", "nothing is begun", "check that the folder exists and can be written", "choose another place", _R + "test_a_folder_that_cannot_be_written"),
    _cell("recorder", "input vanished", "pending rows, in memory", "the recording is gone (moved, deleted or replaced), at the next flush", "put it back: the next flush goes on", _R + "test_a_recording_that_vanishes_is_noticed_at_the_next_flush"),
    _cell("recorder", "two processes", "the first one's rows", "another process is recording into it; in one process: this process is recording into it already", "wait, or end the first; a lock left by a killed process locks nothing", _R + "test_a_second_process_is_refused", _R + "test_a_second_recorder_in_the_same_process_is_refused", _R + "test_a_lock_that_was_left_behind_locks_nothing", _R + "test_without_locks_a_living_writer_is_noticed", _R + "test_without_locks_a_dead_writer_locks_nothing", _R + "test_without_locks_a_writer_elsewhere_is_respected"),
    _cell("recorder", "clock jumps", "everything; wall_time is monotonic", "nothing", "nothing to do", "tests/nn/test_recorder.py::test_the_clock_may_jump"),
    _cell("recorder", "out of memory", "every row before; pending rows stay", "MemoryError, to the program", "the next flush, or resume", _R + "test_no_memory_for_a_batch"),
    # -- train -----------------------------------------------------------------------------------
    _cell("train", "kill -9", "the last checkpoint, and the trace to its last flush", "nothing", "--resume: bit for bit as uninterrupted (CPU)", _T + "test_the_command_itself", "tests/nn/test_training.py::test_a_killed_run_resumes_from_an_older_checkpoint"),
    _cell("train", "SIGTERM", "a checkpoint of this very step", "the result so far; exit code 130", "--resume: bit for bit", _T + "test_a_signal_saves_and_the_resumed_run_is_the_same", _T + "test_the_command_itself"),
    _cell("train", "Ctrl-C", "a checkpoint of this very step", "the result so far; exit code 130", "--resume: bit for bit", _T + "test_a_signal_saves_and_the_resumed_run_is_the_same", _T + "test_the_command_itself"),
    _cell("train", "disk full", "the checkpoint before, whole; every flushed row", "run.ckpt: cannot be written (No space left on device)", "--resume after making space: bit for bit", _T + "test_a_full_disk_at_a_checkpoint"),
    _cell("train", "folder not writable", "nothing is begun", "cannot be written", "choose another place", _T + "test_a_place_that_cannot_be_written"),
    _cell("train", "input vanished", "nothing is begun (the data are in memory afterwards)", "no such folder or zip archive; no such checkpoint", "give the path", _T + "test_vanished_files_are_named"),
    _cell("train", "two processes", "the first one's files", "another process is training with this checkpoint; without --resume and --force: is there already", "wait", _T + "test_two_commands_on_one_output", _T + "test_a_second_run_from_the_same_checkpoint_is_refused"),
    _cell("train", "clock jumps", "everything; no number depends on the clock", "nothing", "nothing to do", _T + "test_a_run_does_not_depend_on_the_clock"),
    _cell("train", "out of memory", "the last checkpoint, every logged row", "out of memory; exit code 2", "--resume: bit for bit", _T + "test_no_memory_in_a_step"),
    # -- campaign --------------------------------------------------------------------------------
    _cell("campaign", "kill -9", "of every run a checkpoint: workers notice that the driver is gone", "nothing", "--resume: bit for bit", _E + "test_kill_9_of_the_driver", _E + "test_kill_9_of_a_worker_ends_that_run_alone"),
    _cell("campaign", "SIGTERM", "of every run a checkpoint", "the table so far; exit code 130", "--resume: bit for bit", _E + "test_a_signal_saves_checkpoints"),
    _cell("campaign", "Ctrl-C", "of every run a checkpoint", "the table so far; exit code 130", "--resume: bit for bit", _E + "test_a_signal_saves_checkpoints"),
    _cell("campaign", "disk full", "the run's last checkpoint, whole", "the run failed, with the reason in its record", "--resume after making space: bit for bit", _C + "test_a_full_disk_fails_the_run_and_keeps_its_checkpoint"),
    _cell("campaign", "folder not writable", "nothing is begun", "cannot be made", "choose another place", _C + "test_places_that_cannot_be_written_or_are_gone"),
    _cell("campaign", "input vanished", "nothing is begun", "no such folder or zip archive; the plan cannot be read", "give the path", _C + "test_places_that_cannot_be_written_or_are_gone"),
    _cell("campaign", "two processes", "the first one's runs", "another process is running a campaign there", "wait", _C + "test_a_second_driver_is_refused"),
    _cell("campaign", "clock jumps", "everything; no number depends on the clock", "nothing", "nothing to do", _C + "test_a_campaign_does_not_depend_on_the_clock"),
    _cell("campaign", "out of memory", "all other runs go on; of this one the last checkpoint", "failed: MemoryError, or killed by SIGKILL (out of memory?)", "--resume: bit for bit", _C + "test_no_memory_in_a_worker_fails_that_run", _E + "test_kill_9_of_a_worker_ends_that_run_alone"),
    # -- sweep -----------------------------------------------------------------------------------
    _cell("sweep", "kill -9", "every finished part", "nothing; reading it says how many parts are missing", "--resume computes the rest: the same numbers", _S + "test_a_stopped_sweep_goes_on_to_the_same_numbers", "tests/loops/test_sweep.py::test_killed_worker_and_killed_driver_lose_and_double_nothing"),
    _cell("sweep", "SIGTERM", "every finished part", "terminated; exit code 143", "--resume: the same numbers", _S + "test_a_stopped_sweep_goes_on_to_the_same_numbers", _S + "test_signals_reach_worker_processes_too"),
    _cell("sweep", "Ctrl-C", "every finished part", "interrupted; exit code 130", "--resume: the same numbers", _S + "test_a_stopped_sweep_goes_on_to_the_same_numbers", _S + "test_signals_reach_worker_processes_too"),
    _cell("sweep", "disk full", "every finished part, and no piece of one", "the sweep stopped with N of M chunks missing (No space left on device)", "--resume after making space: the same numbers", _S + "test_a_sweep_on_a_full_disk", _S + "test_a_sweep_on_a_disk_that_is_really_full"),
    _cell("sweep", "folder not writable", "nothing is begun", "cannot be written", "choose another place", _S + "test_a_sweep_into_a_folder_that_cannot_be_written"),
    _cell("sweep", "input vanished", "what is left", "the grid cannot be read; the folder of its parts is gone", "give the path; run it anew", _S + "test_a_sweep_whose_files_vanish"),
    _cell("sweep", "two processes", "the first one's parts", "another process is running a sweep there", "wait", _S + "test_a_second_sweep_into_the_same_folder_is_refused"),
    _cell("sweep", "clock jumps", "everything; no number depends on the clock", "nothing", "nothing to do", _S + "test_a_sweep_does_not_depend_on_the_clock"),
    _cell("sweep", "out of memory", "every finished part", "the sweep stopped with N of M chunks missing (MemoryError, or worker processes died): choose a smaller chunk", "--resume: the same numbers", _S + "test_a_sweep_without_memory_stops_with_a_word", _S + "test_workers_that_run_out_of_memory"),
    # -- corpus ----------------------------------------------------------------------------------
    _cell("fuzz corpus", "kill -9", "every saved case, whole", "nothing", "the next search replays them first", _F + "test_a_corpus_keeps_every_saved_case"),
    _cell("fuzz corpus", "SIGTERM", "every saved case", "terminated; exit code 143", "the next search replays them first", _F + "test_a_corpus_keeps_every_saved_case", _F + "test_a_stopped_search_says_so"),
    _cell("fuzz corpus", "Ctrl-C", "every saved case", "interrupted; exit code 130", "the next search replays them first", _F + "test_a_corpus_keeps_every_saved_case", _F + "test_a_stopped_search_says_so"),
    _cell("fuzz corpus", "disk full", "the cases before", "cannot be written: choose another with --corpus", "the search is a function of its seed: it finds the case again", _F + "test_a_corpus_on_a_full_disk"),
    _cell("fuzz corpus", "folder not writable", "nothing", "cannot be written: choose another with --corpus", "choose another, or --no-corpus", _F + "test_a_corpus_that_cannot_be_written"),
    _cell("fuzz corpus", "input vanished", "the other cases", "cannot be read; a missing folder is an empty corpus", "run it again", _F + "test_a_case_that_vanishes_while_the_corpus_is_read"),
    _cell("fuzz corpus", "two processes", "the cases of both: a name is a digest of its content", "nothing", "nothing to do", _F + "test_two_searches_share_a_corpus"),
    _cell("fuzz corpus", "clock jumps", "everything; names do not hold the time", "nothing", "nothing to do", _F + "test_names_of_cases_do_not_depend_on_the_clock"),
    _cell("fuzz corpus", "out of memory", "the cases saved before", "out of memory; exit code 2", "run it again", _F + "test_a_search_without_memory"),
    # -- report ----------------------------------------------------------------------------------
    _cell("report", "kill -9", "the old page or the new one, never a part; perhaps a hidden temporary file", "nothing", "run it again", _F + "test_the_report_itself_stopped", _F + "test_kill_dash_nine_leaves_the_old_page_or_the_new_one"),
    _cell("report", "SIGTERM", "the old page", "terminated; exit code 143", "run it again", _F + "test_the_report_itself_stopped", _F + "test_a_stopped_report_says_so_and_leaves_the_old_page", _F + "test_a_report_stopped_while_a_library_is_loaded_says_so", _F + "test_a_report_stopped_while_it_is_written_leaves_no_piece"),
    _cell("report", "Ctrl-C", "the old page", "interrupted; exit code 130", "run it again", _F + "test_the_report_itself_stopped", _F + "test_a_stopped_report_says_so_and_leaves_the_old_page"),
    _cell("report", "disk full", "the old page", "cannot be written (No space left on device): choose another place with -o", "run it again", _F + "test_the_report_itself_on_a_full_disk", _F + "test_a_report_on_a_full_disk", _F + "test_a_report_on_a_disk_that_is_really_full"),
    _cell("report", "folder not writable", "nothing", "cannot be written: choose another place with -o", "choose another", _F + "test_a_report_into_a_folder_that_cannot_be_written"),
    _cell("report", "input vanished", "the old page", "cannot be read (No such file or directory): check the path", "give the path", _F + "test_an_input_that_vanished"),
    _cell("report", "two processes", "the page of the last one, whole", "nothing", "nothing to do", _F + "test_two_processes_on_one_page_leave_a_whole_one"),
    _cell("report", "clock jumps", "the same page", "nothing", "nothing to do", _F + "test_a_report_does_not_depend_on_the_clock"),
    _cell("report", "out of memory", "the old page", "out of memory; exit code 2; or a native library ends the process: a signal, or exit code 1 and words of its own", "run it again", _F + "test_the_report_itself_without_memory", _F + "test_native_code_that_fails_to_say_that_it_got_no_memory", _F + "test_a_lack_of_memory_that_is_no_memory_error", _F + "test_a_report_without_memory"),
    # -- dashboard -------------------------------------------------------------------------------
    _cell("dashboard", "kill -9", "it writes nothing", "nothing", "start it again, on the same port", _C + "test_a_stopped_dashboard_leaves_its_port_and_nothing_else"),
    _cell("dashboard", "SIGTERM", "it writes nothing", "stopped", "start it again, on the same port", _C + "test_a_stopped_dashboard_leaves_its_port_and_nothing_else"),
    _cell("dashboard", "Ctrl-C", "it writes nothing", "stopped", "start it again, on the same port", _C + "test_a_stopped_dashboard_leaves_its_port_and_nothing_else", _SERVER + "test_interrupting_ends_it_quietly"),
    _cell("dashboard", "disk full", "it writes nothing", "nothing", "nothing to do"),
    _cell("dashboard", "folder not writable", "it writes nothing", "nothing", "nothing to do"),
    _cell("dashboard", "input vanished", "it shows the trace it has read", "before the start: cannot be read: check the path", "give the path", _C + "test_a_trace_that_vanishes_is_still_shown", _F + "test_an_input_that_vanished"),
    _cell("dashboard", "two processes", "the first goes on", "port N is in use: choose another with --port", "--port 0", _SERVER + "test_a_taken_port_is_one_line_and_exit_2"),
    _cell("dashboard", "clock jumps", "it shows no time", "nothing", "nothing to do"),
    _cell("dashboard", "out of memory", "it writes nothing; what is open goes on", "before the start: out of memory, or no memory for what the trace declares to hold; exit code 2. A page that finds none: error 500, and the library's traceback on standard error", "start it again; load the page again when there is memory", _F + "test_a_dashboard_without_memory_for_its_trace", _F + "test_a_dashboard_without_memory_for_a_page_goes_on"),
)  # fmt: skip

_HEAD = """# Faults and hostile input

What happens to a recording, a run, a sweep when something happens to the process, the disk or the
clock; and what the readers of files do with files that nobody wrote in good faith. Written by
`python tests/faults/matrix.py` from the table that the tests are held against, and from the record
of the inputs.

Three promises hold throughout: nothing recorded before the last flush is lost; no half-written
file is ever read as a whole one; and what is said is one line on standard error, without a
traceback. Exit code 2 is a refusal, 130 Ctrl-C, 143 SIGTERM.

## Faults

Each line is staged by the tests named below the tables: child processes that are really killed,
a file system of 64 KiB that is really full (with root; else a limit on the size of files), a
folder that cannot be written, locks held by another process, a patched clock, memory that is
refused. `python -m pytest tests/faults -m "slow or not slow"` runs them.
"""

_LIMITS = """
### What is not covered

* Locks are those of the operating system. On a file system that has none (some network mounts)
  the lock file names the host and the process that hold it. That counts while the process lives;
  of another host it cannot be known, and the message says which file to delete.
* Where memory ends inside a native library (OpenBLAS, C++ in pyarrow or LLVM), the library ends
  the process: no line of ours, and an exit code of its own. Files are kept as with kill -9.
* Settings, tasks and the rest of the metadata carry a checksum, as batches and pages do. Recordings
  of earlier releases have none there: a flipped bit in a setting that leaves it valid is read as that
  setting.
* A page of a Parquet file may declare up to 128 MiB, and pyarrow asks for as much before it looks;
  a file with a larger one is refused.
* After a power cut, what was flushed is there if the disk keeps its word on `fsync`. A recording
  made with `sync=False` promises only to survive the process.
* kill -9 while a page, a picture or a part of a sweep is being written may leave a hidden
  temporary file (`.name.*.tmp`) beside it. Nothing reads it; a resumed sweep removes those of its
  own that are older than a minute.
* A page of the dashboard that finds no memory is one more exception to the one line: the libraries
  that serve it write their traceback.
* Ctrl-C in the seconds in which Python itself starts, before the command line has taken over,
  still shows Python's own traceback.
"""

_HOSTILE = """
## Hostile input

Every reader is fed files made from good ones: bits, bytes, words and lines changed; JSON and TOML
trees with values, keys and shapes changed; Arrow and Parquet files whose headers are changed and
whose lengths are mended again, or that hold strange tables; zip archives with paths that lead out,
links, doubles and bombs; checkpoints whose pickles are changed or would run something, with which
a step is then trained; recordings that are cut, and then watched, resumed and finished; folders of
sweeps and campaigns; addresses, headers and uploads of the dashboard; addresses, redirects and
announced lengths of a download. A theorem file is the user's own code: what it declares, and what
the process that runs it answers, are data. Input n of a reader is a function of the reader, the seed and n. A second run lets the coverage of the
reader's code choose what to change further (atheris); the tests let Hypothesis draw the changes.

Each reader runs in a process of its own: 5 s of processor time for each input, a cap on the
address space above that of the idle process, and a guard in the interpreter that refuses, and
reports, any program started, any code run from data, and any file opened for writing or changed
outside one folder. The only answers allowed are a value, which must print and become JSON, and
`InputError` in one printable line of at most 1,200 characters. Everything else is a finding: found
cases are kept in `tests/hostile/cases` and read by the tests.

`python simulations/hostile_inputs.py` makes this table
(`simulations/results/hostile_inputs.json`), goes on where it was stopped, and takes
`--readers`, `--inputs`, `--guided` and `--seed`.
"""


def cell(part: str, fault: str) -> Cell:
    """The cell of the matrix."""
    (found,) = [c for c in CELLS if (c.part, c.fault) == (part, fault)]
    return found


def page() -> str:
    """The page of the documentation."""
    out = [_HEAD]
    for part in PARTS:
        out.append(f"### {part.capitalize()}\n")
        rows = [("fault", "what is kept", "what is said", "how it goes on")]
        for fault in FAULTS:
            found = cell(part, fault)
            rows.append((fault, found.kept, found.said, found.resumes))
        out.append(_table(rows))
        tests = sorted({name.split("::")[0] for c in CELLS if c.part == part for name in c.tests})
        out.append("Tests: " + ", ".join(f"`{name}`" for name in tests) + ".\n")
    out += [_LIMITS.strip() + "\n", _HOSTILE.strip() + "\n", _inputs()]
    return "\n".join(out)


def _inputs() -> str:
    if not RECORD.exists():
        return "No record has been made yet.\n"
    record: dict[str, Any] = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = [("reader", "inputs", "read", "findings", "mended", "guided", "inputs/s", "slowest", "peak memory", "cap")]  # fmt: skip
    for name, entry in record["readers"].items():
        guided = entry["guided"] or {"inputs": 0, "findings": []}
        findings = len(entry["findings"]) + len(guided["findings"])
        rows.append(
            (
                name,
                f"{entry['inputs']:,}",
                f"{entry['accepted']:,}",
                str(findings),
                str(entry.get("mended", 0)),
                f"{guided['inputs']:,}",
                f"{entry['inputs'] / max(entry['cpu_seconds'], 1e-9):,.0f}",
                f"{entry['slowest_cpu_seconds']:.2f} s",
                f"{max(0.0, entry['peak_mib'] - entry['idle_mib']):,.0f} MiB",
                f"{entry['cap_mib']:,} MiB",
            )
        )
    total = sum(entry["inputs"] for entry in record["readers"].values())
    note = (
        f"\n{total:,} inputs in all. `read` were taken, the others refused in one line; `mended` found "
        "something when they were first read, and nothing since. Peak memory is resident, above the idle process; inputs/s is by processor time; seeds "
        f"are {sorted({e['seed'] for e in record['readers'].values()})}.\n"
    )
    return _table(rows) + note


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
