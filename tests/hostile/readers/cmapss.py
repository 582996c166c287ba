"""C-MAPSS text and archives, kept and fetched."""

from __future__ import annotations

import io
import lzma
import random
import re
import zipfile
from typing import Any, ClassVar

import numpy as np

from hostile import mutate
from hostile.readers.base import Reader, check_line


class CmapssText(Reader):
    name = "cmapss-text"
    modules = ("gabactl.cmapss.files", "gabactl.cmapss.windows")

    def good(self) -> list[bytes]:
        rng = np.random.default_rng(0)
        rows = [
            f"{unit} {cycle} " + " ".join(f"{x:.4f}" for x in rng.normal(size=24))
            for unit, last in ((1, 5), (2, 3), (3, 4))
            for cycle in range(1, last + 1)
        ]
        return ["\n".join(rows).encode() + b"\n", "  \r\n".join(rows[:5]).encode()]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        return (
            mutate.words_of(rng, data, other)
            if rng.random() < 0.85
            else mutate.bytes_of(rng, data, other)
        )

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError
        from gabactl.cmapss.files import read_engines, read_rul

        self.put("train_FD001.txt", data)
        self.put("RUL_FD001.txt", data)
        try:
            lives = read_rul(self.folder, "RUL_FD001.txt")
            if (lives < 0).any() or not np.isfinite(lives).all():
                raise AssertionError("a life that is none")
        except InputError as error:
            check_line(error)
        engines = read_engines(self.folder, "train_FD001.txt")
        if sum(s.stop - s.start for _, s in engines.slices()) != len(engines):
            raise AssertionError("rows are lost between engines")
        if not (np.isfinite(engines.sensors).all() and np.isfinite(engines.settings).all()):
            raise AssertionError("a value is not finite")
        return engines


class Archives(Reader):
    """Zip archives with sound structure and unsound entries, or the other way round."""

    contents: ClassVar[dict[str, bytes]] = {
        "train_FD001.txt": b"1 1 " + b"0.5 " * 24 + b"\n",
        "test_FD001.txt": b"1 1 " + b"0.5 " * 24 + b"\n",
        "RUL_FD001.txt": b"112\n",
    }

    def good(self) -> list[bytes]:
        plain = _zip([(n, d, 0) for n, d in self.contents.items()])
        deep = _zip([(f"data/{n}", d, 0) for n, d in self.contents.items()])
        inner = _zip([("CMAPSSData.zip", plain, 0), ("readme.pdf", b"x", 0)])
        kinds = [
            _zip([(n, d, 0) for n, d in self.contents.items()], method)
            for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
        ]
        return [plain, deep, inner, *kinds]

    def bad(self, rng: random.Random) -> bytes:
        data, other = self.two(rng)
        if rng.random() < 0.5:
            return self._rebuilt(rng)
        if rng.random() < 0.5:
            return mutate.bytes_of(rng, data, other)
        # The directory at the end, where the names and sizes are.
        at = data.find(b"PK\x01\x02")
        return data[:at] + mutate.bytes_of(rng, data[at:], other, most=3)

    def _rebuilt(self, rng: random.Random, depth: int = 0) -> bytes:
        entries: list[tuple[str, bytes, int]] = [(n, d, 0) for n, d in self.contents.items()]
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(entries))
            name, data, mode = entries[at]
            kind = rng.randrange(9)
            if kind == 0:
                entries[at] = (rng.choice(mutate.PATHS).replace("x", name, 1), data, mode)
            elif kind == 1:
                entries.insert(at, (rng.choice(mutate.PATHS), data, mode))
            elif kind == 2:
                entries[at] = (
                    name,
                    b"../../../etc/passwd",
                    rng.choice((0o120777, 0o020666, 0o010666, 0o140777)),
                )
            elif kind == 3:
                entries.append(entries[at])
            elif kind == 4:
                entries[at] = (name, mutate.bytes_of(rng, data), mode)
            elif kind == 5 and depth == 0:
                entries.append(("inner.zip", self._rebuilt(rng, 1), 0))
            elif kind == 6:
                entries[at] = (name, b"0 " * rng.choice((1000, 3000, 100_000)), mode)
            elif kind == 7:
                entries.append((rng.choice(("a.zip", "A.ZIP", "x/.zip")), rng.randbytes(30), 0))
            else:
                entries[at] = (rng.choice(("data/", "a\\", "A/B/")) + name, data, mode)
        rare = rng.random() < 0.05
        kinds = (
            (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
            if rare
            else (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        )
        out = _zip(entries, rng.choice(kinds))
        return mutate.bytes_of(rng, out, most=2) if rng.random() < 0.3 else out


def _zip(entries: list[tuple[str, bytes, int]], method: int = zipfile.ZIP_STORED) -> bytes:
    import warnings

    sink = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(sink, "w", method, compresslevel=1) as archive:
        warnings.simplefilter("ignore")  # two entries of one name are what is wanted
        for name, data, mode in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # past the constructor, which would mend it
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, data)
    return sink.getvalue()


class CmapssArchive(Archives):
    name = "cmapss-archive"
    modules = ("gabactl.cmapss.files",)

    def good(self) -> list[bytes]:
        text = self.contents["train_FD001.txt"]
        self.packed = [
            lzma.compress(text),
            lzma.compress(text, check=lzma.CHECK_CRC32, preset=0),
            lzma.compress(text) * 2,
        ]
        return super().good()

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.25:
            return mutate.bytes_of(rng, rng.choice(self.packed), rng.choice(self.packed), most=4)
        return super().bad(rng)

    def read(self, data: bytes) -> Any:
        from gabactl.cmapss.files import read_engines

        if data[:2] == b"\xfd7":
            self.put("train_FD001.txt.xz", data)
            return read_engines(self.folder, "train_FD001.txt")
        return read_engines(self.put("data.zip", data), "train_FD001.txt")


class FetchArchive(Archives):
    """What `gabactl cmapss data fetch` unpacks; small files stand for NASA's."""

    name = "fetch-archive"
    modules = ("gabactl.cmapss.fetch",)

    def good(self) -> list[bytes]:
        import hashlib

        self.checksums = {n: hashlib.sha256(d).hexdigest() for n, d in self.contents.items()}
        (self.folder / "out").mkdir(exist_ok=True)
        return super().good()

    def read(self, data: bytes) -> Any:
        from gabactl.cmapss import fetch

        target = self.folder / "out"
        real = fetch.CHECKSUMS
        fetch.CHECKSUMS = self.checksums  # type: ignore[attr-defined]
        try:
            return fetch.unpack(self.put("data.zip", data), target)
        finally:
            fetch.CHECKSUMS = real  # type: ignore[attr-defined]
            for file in target.iterdir():
                if file.name not in self.contents:
                    raise AssertionError(f"{file.name!r} was written")
                file.unlink()


class FetchAddress(Reader):
    """The address of `gabactl cmapss data fetch`, where the server sends it on to, and what it says."""

    name = "fetch-address"
    modules = ("gabactl.cmapss.fetch",)

    def good(self) -> list[bytes]:
        return [
            b"https://data.nasa.gov/CMAPSSData.zip\nhttps://cdn.nasa.gov/x.zip\n4",
            b"http://localhost:8000/a.zip\n\n",
            b"http://[::1]:80/a%20b.zip?x=1#y\nhttps://a/b\n4",
        ]

    def bad(self, rng: random.Random) -> bytes:
        lines = rng.choice(self.seeds).split(b"\n")
        at = rng.randrange(3)
        if rng.random() < 0.3:
            parts = ("http", "https", "file", "ftp", "data", ":", "//", "/", "[", "]", "@", "::1",
                     "localhost", "\u2100", ":99999", ":x", "\x00", " ", "\t", "..", "%00", "#", "?")  # fmt: skip
            lines[at] = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 9))).encode()
        else:
            lines[at] = mutate.words_of(rng, lines[at], rng.choice(self.seeds))
        return b"\n".join(lines)

    def read(self, data: bytes) -> Any:
        import email
        import urllib.request
        import urllib.response

        from gabactl.cmapss import fetch

        url, onward, length = [*data.split(b"\n"), b"", b""][:3]
        asked: list[str] = []

        class Server(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
            """Answers in place of the network."""

            def http_open(self, request: Any) -> Any:
                asked.append(request.full_url)
                said = email.message_from_string("")
                first = len(asked) == 1 and onward
                if first:
                    said["Location"] = onward.replace(b"\r", b"").decode("latin-1")
                elif length:
                    said["Content-Length"] = length.replace(b"\r", b"").decode("latin-1")
                answer = urllib.response.addinfourl(io.BytesIO(b"PK\3\4"), said, request.full_url)  # type: ignore[arg-type]
                answer.code, answer.msg = (302, "Found") if first else (200, "OK")  # type: ignore[attr-defined]
                return answer

            https_open = http_open

        build = urllib.request.build_opener
        urllib.request.build_opener = lambda *handlers: build(*handlers, Server)  # type: ignore[assignment]
        try:
            fetch.download(url.decode("utf-8", "surrogateescape"), self.folder / "fetched.zip")
        finally:
            urllib.request.build_opener = build
            for address in asked:
                if not re.match("https?:", address.strip(), re.I):
                    raise AssertionError(f"{address!r} was asked for")
            if len(asked) > 1 and asked[0][:6].lower() == "https:" != asked[1][:6].lower():
                raise AssertionError(f"{asked[0]!r} led to {asked[1]!r}")
        return asked
