"""What the dashboard's server answers, and whom: raw HTTP, without a browser."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from urllib.parse import quote, urlsplit

import pytest
from browser import end_server, start_server

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


def ask(address: str, target: str = "/", *headers: str, method: str = "GET") -> tuple[int, str]:
    """Status and body of a request whose every header is given ("{own}" is the right host)."""
    where = urlsplit(address)
    own = f"{where.hostname}:{where.port}"
    lines = [f"{method} {target} HTTP/1.1", *(h.replace("{own}", own) for h in headers)]
    with socket.create_connection((where.hostname, where.port), timeout=20) as connection:
        connection.sendall(("\r\n".join([*lines, "Connection: close", "", ""])).encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
            head, gap, body = answer.partition(b"\r\n\r\n")
            # A connection that was to become a websocket stays open.
            length = re.search(rb"content-length: (\d+)", head.lower())
            if gap and (b" 101 " in head or (length and len(body) >= int(length[1]))):
                break
    head, _, body = answer.decode("utf-8", errors="replace").partition("\r\n\r\n")
    return int(head.split()[1]), body


def test_our_own_requests_are_answered(server):
    status, body = ask(server, "/", "Host: {own}")
    assert status == 200
    assert "gabactl" in body
    assert ask(server, "/", "Host: {own}", "Origin: http://{own}")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        ("Host: evil.example",),
        ("Host: evil.example:{port}",),
        ("Host: 127.0.0.1.evil.example",),
        ("Host: localhost",),
        ("Host: {own}", "Host: evil.example"),
        ("Host: {own}", "Origin: http://evil.example"),
        ("Host: {own}", "Origin: null"),
        ("Host: {own}", "Origin: https://{own}"),
        ("Host: {own}", "Origin: http://127.0.0.1:1"),
    ],
)
@pytest.mark.parametrize("target", ["/", "/static/js/bokeh.min.js", "/ws", "/nothing"])
def test_foreign_host_or_origin_is_refused(server, target, headers):
    port = str(urlsplit(server).port)
    given = [h.replace("{port}", port) for h in headers]
    more = UPGRADE if target == "/ws" else ()
    status, body = ask(server, target, *given, *more)
    # Two Host headers are no valid request at all, and may be refused as such.
    assert status == 403 or (status == 400 and given[1:] == ["Host: evil.example"])
    assert "Bokeh" not in body


def test_foreign_methods_are_refused_too(server):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "HEAD"):
        assert ask(server, "/", "Host: evil.example", method=method)[0] == 403


def test_a_websocket_opens_for_our_page_alone(server):
    """With a session's token: the one thing that a foreign page must not do."""
    _, body = ask(server, "/", "Host: {own}")
    token = body.split('"token":"')[1].split('"')[0]
    protocols = f"Sec-WebSocket-Protocol: bokeh, {token}"
    assert ask(server, "/ws", "Host: {own}", "Origin: http://{own}", *UPGRADE, protocols)[0] == 101
    for headers in (
        ("Host: {own}", "Origin: http://evil.example"),
        ("Host: evil.example", "Origin: http://evil.example"),
        ("Host: evil.example", "Origin: http://{own}"),
    ):
        assert ask(server, "/ws", *headers, *UPGRADE, protocols)[0] == 403


@pytest.mark.parametrize(
    "query",
    [
        "beta=nan&floor=inf&warmup=1e400&step=-1",
        "tab=<script>alert(1)</script>&source=../../etc/passwd",
        "beta=" + "9" * 3000,
        "without=" + quote("a,<b>,\x00,'\""),
        "beta=0.5&beta=0.9&beta=%ff%fe",
        "x=1?y=2&beta=0.3?",
        "%00=%00&=&&&==&theme=%0d%0aSet-Cookie:a=b",
        "&".join(f"k{i}=1" for i in range(500)),
    ],
)
def test_a_hostile_address_still_gets_the_page(server, query):
    status, body = ask(server, "/?" + query, "Host: {own}")
    assert status == 200
    assert "Traceback" not in body
    assert "<script>alert(1)" not in body


def test_nothing_is_fetched_from_elsewhere(server):
    _, body = ask(server, "/", "Host: {own}")
    for start in ("src=", "href="):
        for piece in body.split(start)[1:]:
            address = piece[1:].split(piece[0])[0]
            assert not address.startswith(("http:", "https:", "//")), address


def test_it_listens_on_the_loopback_address_alone(server):
    port = urlsplit(server).port
    here = socket.gethostbyname(socket.gethostname())
    if here.startswith("127."):
        pytest.skip("this machine's name is a loopback address")
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex((here, port)) != 0


def test_a_taken_port_is_one_line_and_exit_2(server):
    port = str(urlsplit(server).port)
    done = subprocess.run(
        [sys.executable, "-m", "gabactl", "dashboard", "--no-browser", "--port", port],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "in use" in done.stderr
    assert "--port 0" in done.stderr


def test_interrupting_ends_it_quietly():
    pytest.importorskip("panel", reason="panel is not installed")
    process, address = start_server()
    assert ask(address, "/", "Host: {own}")[0] == 200
    errors = end_server(process, signal.SIGINT)
    assert process.returncode in (0, 130)
    assert errors == "stopped\n"
