"""What the dashboard is given from outside."""

from __future__ import annotations

import random
import re
from typing import Any

from hostile import mutate
from hostile.readers.base import Reader
from hostile.readers.traces import traces


class DashboardAddress(Reader):
    """The query in the address of the dashboard."""

    name = "dashboard-address"
    modules = ("gabactl.app.state",)
    needs = ("panel",)

    def good(self) -> list[bytes]:
        return [
            b"tab=sensor&without=heads,trunk",
            b"beta=0.9&floor=0.01&warmup=10&law=inverse&guard=none&interval=3&step=50",
            b"source=fd001-equal&ratio=500&rho=-0.5&lag=3&delay=2&alpha=0.12&theme=dark",
            b"progress_1=0.5&progress_2=1.5&variant=textbook&floor_mode=affine",
        ]

    def bad(self, rng: random.Random) -> bytes:
        return mutate.words_of(rng, *self.two(rng)).replace(
            b" ", b"%20" if rng.random() < 0.5 else b"+"
        )

    def read(self, data: bytes) -> Any:
        from urllib.parse import parse_qs

        from gabactl.app.state import LIMITS, View

        try:
            query = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
            raw = parse_qs(data, keep_blank_values=True)
        except ValueError:  # too many fields: the server's own parser says no
            return None
        view, problems = View().updated_by(query)
        View().updated_by({k.decode("latin-1"): v for k, v in raw.items()})
        if len(problems) > 4 or any(len(p) > 1300 for p in problems):
            raise AssertionError("too much is said")
        for name, (low, high) in LIMITS.items():
            if not low <= getattr(view, name) <= high:
                raise AssertionError(f"{name} = {getattr(view, name)}")
        again, said = View().updated_by(parse_qs(view.to_query()[1:], keep_blank_values=True))
        if again != view or said:
            raise AssertionError("the address of the view is another view")
        return view


class DashboardHeaders(Reader):
    """Host and Origin of a request: any page that a browser shows can send one."""

    name = "dashboard-headers"
    modules = ("gabactl.app.server",)
    needs = ("panel",)

    def good(self) -> list[bytes]:
        from gabactl.app.server import _Foreign

        self.ours = frozenset(("127.0.0.1:5006", "localhost:5006"))
        self.foreign = _Foreign(self.ours)
        return [
            b"Host: 127.0.0.1:5006\r\nOrigin: http://127.0.0.1:5006\r\n",
            b"Host: localhost:5006\r\nOrigin: http://localhost:5006\r\nUpgrade: websocket\r\n",
            b"Host: LocalHost:5006\r\n",
            b"Host: evil.example:5006\r\nOrigin: http://[::1]:5006\r\n",
        ]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return mutate.words_of(rng, *self.two(rng))
        parts = ("http", "https", "ws", "://", "//", "localhost", "127.0.0.1", "[::1]", "[", "]",
                 ":5006", ":", ":x", "@", "evil.example", "/", "null", "", "\u2100", "\t", "LOCALHOST")  # fmt: skip
        origin = "".join(rng.choice(parts) for _ in range(rng.randrange(1, 7)))
        host = rng.choice(("localhost:5006", "".join(rng.choice(parts) for _ in range(3))))
        return f"Host: {host}\r\nOrigin: {origin}\r\n".encode()

    def read(self, data: bytes) -> Any:
        from tornado.httputil import (
            HTTPHeaders,
            HTTPInputError,
            HTTPServerRequest,
            RequestStartLine,
        )

        try:  # as the server does before anything of ours is asked
            headers = HTTPHeaders.parse(data.decode("latin-1"))
            start = RequestStartLine("GET", "/", "HTTP/1.1")
            request = HTTPServerRequest(headers=headers, start_line=start)
        except (HTTPInputError, ValueError):
            return None
        if self.foreign.match(request) is not None:
            return None
        hosts = headers.get_list("Host")
        if len(hosts) != 1 or hosts[0].lower() not in self.ours:
            raise AssertionError(f"Host {hosts} was taken for ours")
        for origin in headers.get_list("Origin"):
            address = re.fullmatch(
                r"http://(localhost|127\.0\.0\.1):5006([/?#].*)?", origin.lower()
            )
            if address is None:
                raise AssertionError(f"Origin {origin!r} was taken for ours")
        return request


class Upload(Reader):
    """A file that is dropped on the dashboard, and its name: length, name, content."""

    name = "dashboard-upload"
    modules = ("gabactl.app.trace",)
    needs = ("panel",)

    def good(self) -> list[bytes]:
        from gabactl.traces import write_csv, write_parquet

        self.contents = []
        for trace in traces():
            self.contents.append(write_csv(trace, self.folder / "seed.csv").read_bytes())
            self.contents.append(write_parquet(trace, self.folder / "seed.parquet").read_bytes())
        return [
            _named("run.csv", self.contents[0]),
            _named("run.parquet", self.contents[1]),
            _named("../../run", self.contents[2]),
        ]

    def bad(self, rng: random.Random) -> bytes:
        data, other = rng.choice(self.contents), rng.choice(self.contents)
        if rng.random() < 0.5:
            data = mutate.bytes_of(rng, data, other, most=2)
        name = rng.choice(mutate.PATHS) if rng.random() < 0.5 else rng.choice(mutate.TEXTS)
        return _named(name + rng.choice(("", ".csv", ".parquet", ".arrows", ".json")), data)

    def read(self, data: bytes) -> Any:
        from gabactl.app.trace import read_upload

        size = int.from_bytes(data[:4], "little")
        trace = read_upload(data[4 : 4 + size].decode("utf-8", "replace"), data[4 + size :])
        if not trace.source or set(trace.source) & set('/\\<>&"'):
            raise AssertionError(f"a trace of the name {trace.source!r}")
        return trace


def _named(name: str, content: bytes) -> bytes:
    told = name.encode("utf-8", "replace")
    return len(told).to_bytes(4, "little") + told + content
