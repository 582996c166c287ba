"""``gabactl cmapss data``: journeys on the command line."""

from __future__ import annotations

import hashlib
import io
import json
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from gabactl.cli import main
from gabactl.cmapss import fetch as module
from gabactl.cmapss import files
from gabactl.cmapss.files import CHECKSUMS


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_fetch_then_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = {name: f"{name} ".encode() for name in CHECKSUMS}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    monkeypatch.setattr(module, "CHECKSUMS", sums)
    monkeypatch.setattr(files, "CHECKSUMS", sums)
    served = tmp_path / "served"
    served.mkdir()
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as z:
        for name, data in content.items():
            z.writestr(name, data)
    (served / "a.zip").write_bytes(sink.getvalue())
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(served)))
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{http.server_port}/a.zip"
        target = tmp_path / "data"
        assert main(["cmapss", "data", "fetch", "-o", str(target), "--url", url]) == 0
        assert "12 files" in capsys.readouterr().out
        assert main(["cmapss", "data", "verify", str(target)]) == 0
        capsys.readouterr()
        (target / "RUL_FD001.txt").write_text("other")
        (target / "RUL_FD002.txt").unlink()
        assert main(["cmapss", "data", "verify", str(target), "--json"]) == 1
        found = json.loads(capsys.readouterr().out)
        status = {file["name"]: file["status"] for file in found["files"]}
        assert not found["ok"]
        assert status["RUL_FD001.txt"] == "differs"
        assert status["RUL_FD002.txt"] == "missing"
        assert status["RUL_FD003.txt"] == "ok"
        missing = f"http://127.0.0.1:{http.server_port}/b.zip"
        assert main(["cmapss", "data", "fetch", "-o", str(target), "--url", missing]) == 2
    finally:
        http.shutdown()
        http.server_close()


@pytest.mark.parametrize(
    "arguments",
    [
        ["cmapss", "data", "fetch", "-o", "x", "--url", "file:///etc/passwd"],
        ["cmapss", "data", "fetch", "imagenet", "-o", "x"],
        ["cmapss", "data", "fetch"],
        ["cmapss", "data", "verify", "nowhere-at-all"],
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1
