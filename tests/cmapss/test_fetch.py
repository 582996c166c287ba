"""The downloader, against a server on this machine that misbehaves in every way it can."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import stat
import threading
import time
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gabactl.base.errors import InputError
from gabactl.cmapss import fetch as module
from gabactl.cmapss import files
from gabactl.cmapss.fetch import download, fetch, unpack
from gabactl.cmapss.files import CHECKSUMS

CONTENT = {name: f"{name}\n".encode() * 50 for name in CHECKSUMS}


@pytest.fixture(autouse=True)
def _small_originals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that NASA's files are these small ones."""
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in CONTENT.items()}
    monkeypatch.setattr(module, "CHECKSUMS", sums)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.answers[self.path](self)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def send(self, data: bytes, length: int | None = -1, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(len(data) if length < 0 else length))
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


class _Server:
    def __init__(self) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.answers = {}  # type: ignore[attr-defined]
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.thread.start()

    def url(self, path: str, answer: Callable[[_Handler], None]) -> str:
        self.http.answers[path] = answer  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture(scope="module")
def server() -> Iterator[_Server]:
    running = _Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def archive(content: dict[str, bytes] | None = None, prefix: str = "CMAPSSData/") -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in (CONTENT if content is None else content).items():
            z.writestr(prefix + name, data)
    return sink.getvalue()


def nested() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as z:
        z.writestr("6. Turbofan/readme.txt", "hello")
        z.writestr("6. Turbofan/CMAPSSData.zip", archive())
    return sink.getvalue()


def entries(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("build", [archive, nested])
def test_a_good_archive_arrives_whole(
    server: _Server, tmp_path: Path, build: Callable[[], bytes]
) -> None:
    data = build()
    url = server.url("/good.zip", lambda h: h.send(data))
    seen: list[tuple[int, int | None]] = []
    target = tmp_path / "new" / "folder"
    written = fetch(target, url, on_bytes=lambda *now: seen.append(now))
    assert {p.name: p.read_bytes() for p in written} == CONTENT
    assert entries(target) == set(CONTENT)
    assert seen[-1] == (len(data), len(data))
    # Once more is no error: the files are the same.
    fetch(target, url)


def test_without_a_length_it_works_too(server: _Server, tmp_path: Path) -> None:
    url = server.url("/chunky.zip", lambda h: h.send(archive(), length=None))
    assert len(fetch(tmp_path, url)) == 12


def test_a_wrong_hash_places_nothing(server: _Server, tmp_path: Path) -> None:
    changed = {**CONTENT, "test_FD003.txt": b"other"}
    url = server.url("/wrong.zip", lambda h: h.send(archive(changed)))
    with pytest.raises(InputError, match=r"test_FD003.txt has SHA-256 .*not NASA's"):
        fetch(tmp_path, url)
    assert entries(tmp_path) == set()


def test_a_missing_file_is_named(server: _Server, tmp_path: Path) -> None:
    fewer = {n: d for n, d in CONTENT.items() if n not in ("RUL_FD004.txt", "train_FD001.txt")}
    url = server.url("/fewer.zip", lambda h: h.send(archive(fewer)))
    with pytest.raises(InputError, match=r"has no train_FD001.txt \(and 1 others"):
        fetch(tmp_path, url)
    assert entries(tmp_path) == set()


def test_other_files_in_the_way_are_kept_unless_forced(server: _Server, tmp_path: Path) -> None:
    mine = tmp_path / "train_FD002.txt"
    mine.write_text("mine")
    url = server.url("/good2.zip", lambda h: h.send(archive()))
    with pytest.raises(InputError, match="is there already and is not NASA's"):
        fetch(tmp_path, url)
    assert mine.read_text() == "mine"
    assert entries(tmp_path) == {mine.name}
    fetch(tmp_path, url, force=True)
    assert mine.read_bytes() == CONTENT[mine.name]


def test_too_large_is_stopped(server: _Server, tmp_path: Path) -> None:
    announced = server.url("/huge", lambda h: h.send(b"x", length=1 << 40))
    silent = server.url("/endless", lambda h: h.send(b"x" * 300_000, length=None))
    for url in (announced, silent):
        with pytest.raises(InputError, match="more than 0 MiB"):
            download(url, tmp_path / "x", max_bytes=100_000)


def test_cut_short_and_silent_servers(server: _Server, tmp_path: Path) -> None:
    data = archive()
    short = server.url("/short", lambda h: h.send(data[:100], length=len(data)))
    with pytest.raises(InputError, match=r"download failed|ended after 100"):
        fetch(tmp_path, short)
    truncated = server.url("/truncated", lambda h: h.send(data[: len(data) // 2]))
    with pytest.raises(InputError, match="damaged zip archive"):
        fetch(tmp_path, truncated)
    asleep = server.url("/asleep", lambda h: time.sleep(1.5))
    with pytest.raises(InputError, match="timed out"):
        fetch(tmp_path, asleep, timeout=0.2)
    gone = server.url("/gone", lambda h: h.send(b"", status=404))
    with pytest.raises(InputError, match="the server says 404"):
        fetch(tmp_path, gone)
    page = server.url("/page", lambda h: h.send(b"<html>please log in</html>"))
    with pytest.raises(InputError, match="damaged zip archive"):
        fetch(tmp_path, page)
    with pytest.raises(InputError, match="download failed"):
        fetch(tmp_path, "http://127.0.0.1:9/nothing-listens-here.zip")
    assert entries(tmp_path) == set()


def test_redirects_are_few_and_stay_on_http(server: _Server, tmp_path: Path) -> None:
    good = server.url("/at-last", lambda h: h.send(archive()))
    once = server.url("/once", lambda h: h.send(b"", status=302, Location=good))
    assert len(fetch(tmp_path / "once", once)) == 12
    for i in range(8):
        server.url(f"/r{i}", lambda h, i=i: h.send(b"", status=302, Location=f"/r{i + 1}"))
    many = server.url("/r", lambda h: h.send(b"", status=302, Location="/r0"))
    with pytest.raises(InputError, match="302"):
        fetch(tmp_path / "many", many)
    local = server.url("/local", lambda h: h.send(b"", status=302, Location="file:///etc/passwd"))
    with pytest.raises(InputError, match=r"redirects to file|the server says 302"):
        fetch(tmp_path / "local", local)
    # From https down to http: the handler alone, since this server speaks no TLS.
    handler = module._Redirects()
    request = urllib.request.Request("https://127.0.0.1/a.zip")
    with pytest.raises(InputError, match="less safe: not followed"):
        handler.redirect_request(request, None, 302, "", {}, "http://127.0.0.1/a.zip")
    for url in ("ftp://127.0.0.1/x", "file:///etc/passwd", "cmapss.zip", "http://"):
        with pytest.raises(InputError, match="only http and https"):
            fetch(tmp_path / "scheme", url)


def hostile(name: str, data: bytes = b"x", mode: int = 0) -> bytes:
    sink = io.BytesIO(archive())
    with zipfile.ZipFile(sink, "a", zipfile.ZIP_DEFLATED) as z:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        entry.compress_type = zipfile.ZIP_DEFLATED
        z.writestr(entry, data)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: hostile("../../evil.txt"), "points out of the archive"),
        (lambda: hostile("/etc/evil.txt"), "points out of the archive"),
        (lambda: hostile("a/../../train_FD001.txt"), "points out of the archive"),
        (lambda: hostile("..\\evil.txt"), "points out of the archive"),
        (lambda: hostile("C:/evil.txt"), "points out of the archive"),
        (lambda: hostile("link", b"/etc/passwd", stat.S_IFLNK | 0o777), "is a link"),
        (lambda: hostile("x/train_FD001.txt", b"/etc", stat.S_IFLNK | 0o777), "is a link"),
        (lambda: hostile("pipe", b"", stat.S_IFIFO | 0o644), "is no ordinary file"),
        (lambda: hostile("again/train_FD001.txt", b"1"), "holds train_FD001.txt twice"),
    ],
)
def test_hostile_archives_reach_nothing(
    tmp_path: Path, data: Callable[[], bytes], message: str
) -> None:
    file = tmp_path / "a.zip"
    file.write_bytes(data())
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(InputError, match=message):
        unpack(file, inside)
    assert entries(tmp_path) == {"a.zip", "inside"}
    assert not any(p.is_symlink() for p in inside.iterdir())


def test_bombs_do_not_go_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = {**CONTENT, "train_FD001.txt": b"0" * 3_000_000}
    file = tmp_path / "bomb.zip"
    file.write_bytes(archive(bomb))
    assert file.stat().st_size < 20_000
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(InputError, match="larger than 0 MiB, which no C-MAPSS file is"):
        unpack(file, tmp_path)
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 10_000_000)
    monkeypatch.setattr(files, "_MAX_ARCHIVE_BYTES", 1_000_000)
    with pytest.raises(InputError, match="unpacks to more than C-MAPSS has"):
        unpack(file, tmp_path)
    # A zip in a zip in a zip is not followed down.
    inner = nested()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as z:
        z.writestr("deep.zip", inner)
    file.write_bytes(sink.getvalue())
    with pytest.raises(InputError, match=r"has no train_FD001\.txt"):
        unpack(file, tmp_path)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as z:
        for i in range(1100):
            z.writestr(f"{i}", b"")
    file.write_bytes(sink.getvalue())
    with pytest.raises(InputError, match="1100 entries"):
        unpack(file, tmp_path)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_damaged_archives_are_one_line(tmp_path: Path, compression: int) -> None:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", compression) as z:
        for name, data in CONTENT.items():
            z.writestr(name, data)
    good, file, rng = sink.getvalue(), tmp_path / "a.zip", random.Random(compression)
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.choice([1, 2, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        for read in (
            lambda: unpack(file, tmp_path),
            lambda: files.open_member(file, "RUL_FD004.txt"),
        ):
            # Either the damage does not matter, or it is the one kind of error.
            with contextlib.suppress(InputError):
                read()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_place_that_cannot_be_written(server: _Server, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot be written"):
        fetch(tmp_path / "x", server.url("/good3.zip", lambda h: h.send(archive())))


def test_a_file_where_the_folder_should_be(server: _Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(tmp_path / "file", server.url("/good4.zip", lambda h: h.send(archive())))


@pytest.mark.slow
@pytest.mark.cmapss
def test_the_real_archive(
    server: _Server, tmp_path: Path, cmapss_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKSUMS", CHECKSUMS)
    content = {name: files.open_member(cmapss_dir, name)[1] for name in CHECKSUMS}
    data = archive(content)
    fetch(tmp_path, server.url("/real.zip", lambda h: h.send(data)))
    assert files.verify(tmp_path).ok
