"""Files that are written whole: pages, pictures, settings, corpora."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from faults.scenes import (
    Child,
    Ended,
    address_space,
    disk,
    ended,
    entry,
    file_limit,
    finish,
    started,
    unwritable,
    wait_for,
)
from gabactl.base.errors import InputError
from gabactl.base.files import write_text
from gabactl.fuzzing import corpus
from gabactl.fuzzing.cases import Case
from gabactl.traces import Trace, write_parquet


def case(number: int) -> Case:
    return Case.from_readings([[1.0, float(number + 1)]] * 3)


# -- one file, replaced --------------------------------------------------------------------------


def test_kill_dash_nine_leaves_the_old_page_or_the_new_one(tmp_path: Path) -> None:
    page, pages = tmp_path / "page.html", ("a" * 300_000, "b" * 500_000)
    write_text(page, pages[0])

    def rewrite() -> None:
        while True:
            for text in pages:
                write_text(page, text)

    for wait in (0.01, 0.03, 0.05):
        child = Child(rewrite)
        time.sleep(wait)
        child.signal(signal.SIGKILL)
        child.wait()
        assert page.read_text() in pages
    # What a kill leaves is hidden, and nothing reads it.
    assert all(p.name.startswith(".page.html.") for p in tmp_path.iterdir() if p != page)


def test_two_processes_on_one_page_leave_a_whole_one(tmp_path: Path) -> None:
    page, pages = tmp_path / "page.html", [c * 200_000 for c in "abc"]

    def write(text: str) -> Callable[[], None]:
        return lambda: [write_text(page, text) for _ in range(5)] and None

    for child in [Child(write(text)) for text in pages]:
        assert child.wait().code == 0
    assert page.read_text() in pages
    assert list(tmp_path.iterdir()) == [page]


# -- the report ----------------------------------------------------------------------------------


class _Page:
    """Stands for a report that takes a while: the fault comes while it is being made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fault: Callable[[], object]) -> None:
        import gabactl.cli.report
        import gabactl.reports
        from gabactl.reports import page
        from gabactl.traces import load_bundled

        load_bundled("fd001-gaba")  # imported here once, and not in every child

        def build(*_: object, **__: object) -> object:
            fault()
            return None

        monkeypatch.setattr(gabactl.reports, "report", build)
        monkeypatch.setattr(page, "render_html", lambda report: "x" * 100_000)
        monkeypatch.setattr("gabactl.cli.report.show", lambda *_: None)


def run_report(tmp_path: Path, place: Path | None = None) -> Ended:
    page = (place or tmp_path) / "page.html"
    return ended("report", "fd001-gaba", "-o", page)


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_report_says_so_and_leaves_the_old_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    _Page(monkeypatch, lambda: os.kill(os.getpid(), number))
    (tmp_path / "page.html").write_text("old")
    done = run_report(tmp_path)
    assert (done.code, done.line()) == (code, f"gabactl: {word}")
    assert (tmp_path / "page.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_report_stopped_while_a_library_is_loaded_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """matplotlib's native part makes an ImportError of it; Python then crashed at its end."""

    def fault() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    _Page(monkeypatch, fault)
    done = run_report(tmp_path)
    assert (done.code, done.line()) == (143, "gabactl: terminated")


@pytest.mark.parametrize(
    "error",
    [
        ImportError("liba.so: failed to map segment from shared object"),
        RuntimeError("can't start new thread"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_a_lack_of_memory_that_is_no_memory_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fault() -> None:
        raise error

    _Page(monkeypatch, fault)
    done = run_report(tmp_path)
    assert done.code == 2
    assert done.line().startswith("gabactl: out of memory (")


def test_native_code_that_fails_to_say_that_it_got_no_memory() -> None:
    """CPython's SystemError: a lack of memory where there is none, else a fault to be reported."""

    def stripped(room: int) -> Callable[[], object]:
        def run() -> object:
            from gabactl import cli

            limit = address_space(os.getpid()) + room
            resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
            return cli._outside(SystemError("error return without exception set")) != ""

        return run

    assert Child(stripped(16 << 20)).wait().code == 1
    assert Child(stripped(1 << 30)).wait().code == 0


def test_a_memory_error_without_words_still_says_something() -> None:
    from gabactl import cli

    assert cli._outside(MemoryError()) == (
        "out of memory (no more is to be had): ask for less at once"
    )


def test_a_report_stopped_while_it_is_written_leaves_no_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Page(monkeypatch, lambda: None)
    (tmp_path / "page.html").write_text("old")
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda n: (os.kill(os.getpid(), signal.SIGTERM), real(n)))
    assert run_report(tmp_path).line() == "gabactl: terminated"
    assert (tmp_path / "page.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_report_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _Page(monkeypatch, lambda: file_limit(20_000))
    (tmp_path / "page.html").write_text("old")
    done = run_report(tmp_path)
    assert done.code == 2
    assert "page.html: cannot be written (File too large)" in done.line()
    assert (tmp_path / "page.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_report_on_a_disk_that_is_really_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Page(monkeypatch, lambda: None)
    with disk(tmp_path / "disk", "64k") as place:
        done = run_report(tmp_path, place)
        assert done.code == 2
        assert "No space left on device" in done.line()
        assert not list(place.iterdir())


def test_a_report_into_a_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Page(monkeypatch, lambda: None)
    with unwritable(tmp_path / "locked") as place:
        done = run_report(tmp_path, place)
    assert done.code == 2
    assert "choose another place with -o" in done.line()


def test_a_report_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory() -> None:
        raise MemoryError

    _Page(monkeypatch, no_memory)
    done = run_report(tmp_path)
    assert done.code == 2
    assert "out of memory" in done.line()


def report_itself(tmp_path: Path, place: Path | None = None) -> subprocess.Popen[str]:
    """The command as a user runs it, on a bundled run, where an old page is."""
    page = (place or tmp_path) / "page.html"
    if place is None:
        page.write_text("old")
    return started("report", "fd001-gaba", "-o", page, "--fuzz-steps", 100_000)


def has_loaded(process: subprocess.Popen[str], library: str) -> Callable[[], bool]:
    def loaded() -> bool:
        assert process.poll() is None, process.communicate()
        return library in Path(f"/proc/{process.pid}/maps").read_text()

    return loaded


#: How native libraries end a process that gets no memory.
NATIVE_WORDS = ("OpenBLAS error", "std::bad_alloc", "LLVM ERROR", "Fatal Python error")
#: Native parts of NumPy (loaded first, the command line has taken over) and of matplotlib (late).
EARLY, LATE = "_multiarray_umath", "ft2font"


@pytest.mark.slow
@pytest.mark.parametrize("when", [EARLY, LATE])
@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "gabactl: interrupted\n"),
        (signal.SIGTERM, 143, "gabactl: terminated\n"),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_the_report_itself_stopped(
    tmp_path: Path, number: int, code: int, said: str, when: str
) -> None:
    process = report_itself(tmp_path)
    wait_for(has_loaded(process, when))
    process.send_signal(number)
    done = finish(process)
    assert (done.code, done.err) == (code, said)
    assert (tmp_path / "page.html").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_the_report_itself_on_a_full_disk(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "64k") as place:
        done = finish(report_itself(tmp_path, place), 300)
        assert done.code == 2
        assert "page.html: cannot be written (No space left on device)" in done.line()
        assert not list(place.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("when", [EARLY, LATE])
@pytest.mark.parametrize("mib", [4, 64])
def test_the_report_itself_without_memory(tmp_path: Path, when: str, mib: int) -> None:
    """Whoever notices: Python, the loader of libraries, a thread, or C++, which just ends it."""
    process = report_itself(tmp_path)
    wait_for(has_loaded(process, when))
    limit = address_space(process.pid) + (mib << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    done = finish(process, 300)
    page = tmp_path / "page.html"
    if done.code == 0:  # enough, by then
        assert when == LATE
    else:
        assert page.read_text() == "old"
        if done.code == 2:
            assert done.line().startswith("gabactl: out of memory (")
        else:
            # A native library ended it: by a signal, or in words of its own.
            assert done.code in (1, -signal.SIGABRT, -signal.SIGSEGV), done
            assert done.code < 0 or any(word in done.err for word in NATIVE_WORDS), done
            assert not any(word in done.err for word in ("Traceback", "gabactl: ")), done
        done = finish(report_itself(tmp_path), 300)  # run again, with memory
    assert done.code == 0, done
    assert page.read_text().rstrip().endswith("</html>")
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_a_dashboard_without_memory_for_its_trace(tmp_path: Path) -> None:
    """Said in one line before it listens; Arrow's allocator may say something of its own before."""
    pytest.importorskip("panel")
    trace = tmp_path / "long.parquet"
    write_parquet(Trace.from_arrays(np.random.default_rng(0).lognormal(size=(400_000, 2))), trace)
    process = started("dashboard", trace, "--no-browser", "--port", 0, cwd=tmp_path)
    wait_for(has_loaded(process, "libarrow"))
    limit = address_space(process.pid) + (16 << 20)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    done = finish(process)
    assert (done.code, done.out) == (2, "")
    *others, last = done.err.splitlines()
    assert last.startswith("gabactl: ")
    assert "no memory for what it declares" in last or "out of memory" in last
    assert all(line.startswith("<jemalloc>") for line in others), done.err
    assert list(tmp_path.iterdir()) == [trace]


@pytest.mark.slow
def test_a_dashboard_without_memory_for_a_page_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("panel")
    process = started("dashboard", "--no-browser", "--port", 0, cwd=tmp_path)
    assert process.stdout is not None
    address = process.stdout.readline().split()[0]

    def status() -> int:
        try:
            with urllib.request.urlopen(address, timeout=60) as answer:
                assert b"gabactl dashboard" in answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    limit = address_space(process.pid)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    assert status() == 500
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(process.pid, resource.RLIMIT_AS, unlimited)
    assert status() == 200
    process.send_signal(signal.SIGINT)
    done = finish(process)
    assert done.code == 0
    assert "MemoryError" in done.err
    assert done.err.endswith("stopped\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["report", pytest.param("dashboard", marks=pytest.mark.slow)])
def test_an_input_that_vanished(tmp_path: Path, command: str) -> None:
    pytest.importorskip("panel") if command == "dashboard" else None
    words = ["-o", tmp_path / "page.html"] if command == "report" else ["--no-browser", "--port", 0]
    done = ended(command, tmp_path / "gone.parquet", *words)
    assert done.code == 2
    assert "gone.parquet" in done.line()
    assert "No such file" in done.line() or "no such" in done.line()
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_report_does_not_depend_on_the_clock(tmp_path: Path) -> None:
    def at(jump: float) -> bytes:
        page = tmp_path / f"{jump}.html"

        def run() -> object:
            real = time.time
            time.time = lambda: real() + jump
            return entry("report", "fd001-gaba", "-o", page, "--fuzz-steps", 100_000)()

        assert Child(run).wait(600).code == 0
        return page.read_bytes()

    now, then = at(0.0), at(-1e9)
    # Only what the search says of its own speed may differ.
    assert len(now) == pytest.approx(len(then), abs=200)
    assert now[:5000] == then[:5000]


# -- the corpus of the fuzzer --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_corpus_keeps_every_saved_case(tmp_path: Path, number: int) -> None:
    told = tmp_path / "told"
    told.touch()

    def find() -> None:
        with told.open("a") as say:
            for n in range(10_000):
                say.write(corpus.save(tmp_path / "corpus", "gaba", "bounds", case(n)).name + "\n")
                say.flush()

    child = Child(find)
    wait_for(lambda: told.stat().st_size > 500)
    child.signal(number)
    child.wait()
    names = told.read_text().split()
    entries = corpus.load(tmp_path / "corpus")
    assert {*names} <= {e.path.name for e in entries}
    assert len(entries) <= len(names) + 1
    assert {repr(e.case) for e in entries} <= {repr(case(n)) for n in range(len(names) + 1)}
    # The next search saves on.
    corpus.save(tmp_path / "corpus", "gaba", "bounds", case(20_000))
    assert len(corpus.load(tmp_path / "corpus")) == len(entries) + 1


def test_a_corpus_on_a_full_disk(tmp_path: Path) -> None:
    corpus.save(tmp_path, "gaba", "bounds", case(0))

    def save() -> int:
        file_limit(50)
        try:
            corpus.save(tmp_path, "gaba", "bounds", case(1))
        except InputError as error:
            return 0 if "cannot be written (File too large): choose another" in str(error) else 1
        return 2

    done = Child(save).wait()
    assert done.code == 0, done.err
    assert [e.case for e in corpus.load(tmp_path)] == [case(0)]


def test_a_corpus_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        unwritable(tmp_path / "locked") as place,
        pytest.raises(InputError, match="choose another with --corpus"),
    ):
        corpus.save(place / "corpus", "gaba", "bounds", case(0))


def test_a_case_that_vanishes_while_the_corpus_is_read(tmp_path: Path) -> None:
    corpus.save(tmp_path, "gaba", "bounds", case(0))
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"gone\.json: cannot be read"):
        corpus.load(tmp_path)
    assert corpus.load(tmp_path / "no-folder") == []


def test_two_searches_share_a_corpus(tmp_path: Path) -> None:
    def find(first: int) -> Callable[[], None]:
        def run() -> None:
            for n in range(first, first + 30):
                corpus.save(tmp_path / "corpus", "gaba", "bounds", case(n))

        return run

    for child in [Child(find(0)), Child(find(15))]:
        assert child.wait().code == 0
    assert sorted(repr(e.case) for e in corpus.load(tmp_path / "corpus")) == sorted(
        repr(case(n)) for n in range(45)
    )
    assert len(list((tmp_path / "corpus").iterdir())) == 45


def test_names_of_cases_do_not_depend_on_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = corpus.save(tmp_path, "gaba", "bounds", case(0))
    monkeypatch.setattr(time, "time", lambda: -1e9)
    assert corpus.save(tmp_path, "gaba", "bounds", case(0)) == first


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_search_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int, word: str
) -> None:
    import gabactl.fuzzing.engine

    monkeypatch.setattr(
        gabactl.fuzzing.engine, "fuzz", lambda *_, **__: os.kill(os.getpid(), number)
    )
    done = ended("fuzz", "gaba", "--corpus", tmp_path / "corpus")
    assert (done.code, done.line()) == (code, f"gabactl: {word}")


def test_a_search_without_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gabactl.fuzzing.engine

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError("4 GiB")

    monkeypatch.setattr(gabactl.fuzzing.engine, "fuzz", no_memory)
    done = ended("fuzz", "gaba", "--corpus", tmp_path / "corpus")
    assert (done.code, done.line()) == (2, "gabactl: out of memory (4 GiB): ask for less at once")
