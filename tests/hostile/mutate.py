"""Making bad input out of good input: bytes, words, trees of values, and archives.

Everything is a function of a ``random.Random``, so that input n of a reader is the same input
every time and everywhere.
"""

from __future__ import annotations

import datetime
import json
import random
import re
import struct
from typing import Any

#: Numbers as text, with which parsers of text have had their trouble.
NUMBERS = (
    "0", "-0", "-1", "1", "2", "3", "0.5", "-0.0", "1e308", "-1e308", "1e309", "1e-320", "1e999",
    "nan", "NaN", "inf", "-inf", "Infinity", "2147483648", "-2147483649", "4294967296",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616",
    "9" * 400, "9" * 5000, "0x" + "f" * 5000, "0xff", "0b1", "0o7", "1_000", "1e", "1e+", ".5",
    "5.", "+1", "00", "1,5", "1 5", "٣", "½", "1e2147483648", "0." + "0" * 500 + "1", "true",
    "None", "1j", "[1]", "{}",
)  # fmt: skip

#: Text that has escaped, ended, crashed or run something somewhere.
TEXTS = (
    "", " ", "\x00", "\n", "\r", "\t", "\x1b[2J", "\u2028", "\ufeff", "\u202e", "é", "e\u0301",
    "\U0001f600", "../../etc/passwd", "/etc/passwd", "C:\\x", "file:///etc/passwd", "|touch x",
    "$(touch x)", "`touch x`", "%s%n", "{0.__class__}", "{{7*7}}", "<script>alert(1)</script>",
    "__import__('os').system('touch x')", "os:system", "builtins:eval", "a" * 300, "a" * 70000,
    '"', "'", '"""', "\\", "\\u0000", "#", "=", ",", ";", "[", "]", "{", "}", "grad_norm_", "step",
    "con", ".", "..", "\x7f", "gaba", "nan",
)  # fmt: skip

_WORDS = re.compile(rb"[0-9][0-9.eE+_-]*|[A-Za-z_][A-Za-z0-9_]*|\s+|[^\sA-Za-z0-9_]")
_INTEGERS = (0, 1, 2, 3, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1)
_WIDE = (0, 1, -1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 20, 1 << 28)


def bytes_of(rng: random.Random, data: bytes, other: bytes = b"", most: int = 8) -> bytes:
    """Some changes to bytes: bits, bytes, words, runs, cuts, and pieces of another input."""
    out = bytearray(data)
    for _ in range(min(most, 1 + int(min(rng.expovariate(0.7), 99.0)))):
        if not out:
            return bytes(other[: rng.randrange(1, 64)])
        at = rng.randrange(len(out))
        kind = rng.randrange(11)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.choice(_INTEGERS) & 0xFF
        elif kind == 2:
            out[at] = rng.randrange(256)
        elif kind == 3:
            form = rng.choice(("<H", "<I", "<Q", ">H", ">I"))
            value = rng.choice(_WIDE) % (1 << (8 * struct.calcsize(form)))
            out[at : at + struct.calcsize(form)] = struct.pack(form, value)
        elif kind == 4:
            del out[at : at + rng.choice((1, 2, 4, 8, rng.randrange(1, 200)))]
        elif kind == 5:
            piece = out[at : at + rng.randrange(1, 200)]
            where = rng.randrange(len(out) + 1)
            out[where:where] = piece
        elif kind == 6:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 8, 64)))
        elif kind == 7 and rng.random() < 0.3:
            del out[at:]
        elif kind == 8:
            count = rng.choice((1, 4, 8, 64))
            out[at : at + count] = bytes([rng.choice((0, 0xFF))]) * count
        elif kind == 9 and other:
            start = rng.randrange(len(other))
            piece = bytearray(other[start : start + rng.randrange(1, 300)])
            out[at : at + len(piece)] = piece
        else:
            value = int.from_bytes(out[at : at + 4], "little") + rng.randint(-35, 35)
            out[at : at + 4] = (value % (1 << 32)).to_bytes(4, "little")[: len(out) - at]
    return bytes(out)


def words_of(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """Some changes to text, word by word and line by line, now and then to its bytes."""
    words = _WORDS.findall(data)
    for _ in range(min(8, 1 + int(min(rng.expovariate(0.6), 99.0)))):
        if not words:
            break
        at = rng.randrange(len(words))
        kind = rng.randrange(10)
        if kind <= 2:
            numbers = [
                n for n in (rng.randrange(len(words)) for _ in range(12)) if words[n][:1].isdigit()
            ]
            words[numbers[0] if numbers else at] = rng.choice(NUMBERS).encode()
        elif kind == 3:
            words[at] = rng.choice(TEXTS).encode()
        elif kind == 4:
            del words[at : at + rng.choice((1, 1, 2, 5, 30))]
        elif kind == 5:
            words[at:at] = words[at : at + rng.choice((1, 2, 8, 40))] * rng.choice((1, 1, 2, 9))
        elif kind == 6:
            b = rng.randrange(len(words))
            words[at], words[b] = words[b], words[at]
        elif kind == 7:
            words.insert(
                at,
                rng.choice(
                    (
                        b'"',
                        b"'",
                        b"\n",
                        b"\r",
                        b",",
                        b"=",
                        b"[",
                        b"]",
                        b"{",
                        b"\x00",
                        b"\xff",
                        b"#",
                        b"-",
                        b".",
                        b" ",
                    )
                ),
            )
        elif kind == 8 and rng.random() < 0.2:
            words.insert(
                at, rng.choice((b"[", b"{", b'"', b"{a=", b"(")) * rng.choice((10, 300, 3000))
            )
        elif other:
            more = _WORDS.findall(other)
            b = rng.randrange(len(more))
            words[at:at] = more[b : b + rng.randrange(1, 40)]
    out = b"".join(words)
    return bytes_of(rng, out, other, most=2) if rng.random() < 0.15 else out


def value(rng: random.Random) -> Any:
    """A value that a field did not expect."""
    return rng.choice(_VALUES)()


_VALUES: tuple[Any, ...] = (
    lambda: None,
    lambda: True,
    lambda: False,
    lambda: 0,
    lambda: -1,
    lambda: 1,
    lambda: 2,
    lambda: 64,
    lambda: 10**5,
    lambda: 2**31,
    lambda: 2**63,
    lambda: -(2**63) - 1,
    lambda: 2**64,
    lambda: 10**400,
    lambda: 1 << 20000,
    lambda: 0.5,
    lambda: 0.0,
    lambda: -0.0,
    lambda: 1.0,
    lambda: -1e308,
    lambda: 1e308,
    lambda: 5e-324,
    lambda: float("nan"),
    lambda: float("inf"),
    lambda: float("-inf"),
    list,
    dict,
    lambda: [[]],
    lambda: [1, 2, 3],
    lambda: [0.5, "a"],
    lambda: [[1.0, 2.0], [3.0]],
    lambda: [1e308, 1e308],
    lambda: list(range(40)),
    lambda: {"a": 1},
    lambda: {"from": 0, "to": 1, "points": 10**9},
    lambda: datetime.datetime(2026, 1, 2),
    lambda: datetime.time(1, 2),
    *((lambda text=text: text) for text in TEXTS),
)


def tree_of(rng: random.Random, tree: Any, names: tuple[str, ...] = ()) -> Any:
    """Some changes to a tree of dicts and lists: values, keys, shapes. The original stays."""
    tree = _copy(tree)
    for _ in range(min(5, 1 + int(min(rng.expovariate(0.8), 99.0)))):
        places = list(holders(tree))
        if not places:
            return value(rng)
        holder = rng.choice(places)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = rng.choice(keys)
        kind = rng.randrange(10)
        if kind <= 4:
            holder[key] = _near(rng, holder[key]) if rng.random() < 0.5 else value(rng)
        elif kind == 5:
            del holder[key]
        elif kind == 6 and isinstance(holder, dict):
            new = rng.choice(names) if names and rng.random() < 0.7 else rng.choice(TEXTS)
            holder[new] = holder.pop(key) if rng.random() < 0.5 else value(rng)
        elif kind == 7:
            source = rng.choice(places)
            if (
                isinstance(source, (dict, list))
                and 0 < len(source) < 60
                and sum(1 for _ in holders(source)) < 60
            ):
                holder[key] = _copy(
                    rng.choice(list(source.values()) if isinstance(source, dict) else source)
                )
        elif kind == 8:
            holder[key] = [holder[key]] * rng.choice((1, 2, 3, 50))
        else:
            deep: Any = holder[key]
            for _ in range(rng.choice((1, 2, 90, 3000))):
                deep = [deep]
            holder[key] = deep if rng.random() < 0.2 else {"a": holder[key]}
    return tree


def _near(rng: random.Random, old: Any) -> Any:
    """A value of the same kind, at its edges."""
    if isinstance(old, bool):
        return not old
    if isinstance(old, int):
        return rng.choice(
            (old + 1, old - 1, -old, old * 2, old * 10, 0, 1, 2**31, 2**62, float(old % 10**9))
        )
    if isinstance(old, float):
        return rng.choice(
            (
                old * 2,
                -old,
                old / 1e300,
                old * 1e300,
                0.0,
                1.0,
                1 - 1e-16,
                1e-300,
                int(old) if old == old and abs(old) < 1e15 else 0,
            )
        )
    if isinstance(old, str):
        return rng.choice((old[:-1], old + old, old.upper(), old + "\x00", " " + old, *TEXTS[:12]))
    if isinstance(old, list) and old:
        return rng.choice((old * 2, old[:-1], old[::-1], [*old, value(rng)], old * 40))
    return value(rng)


def holders(tree: Any) -> Any:
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            yield node
            stack.extend(node[:64])


def _copy(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _copy(item) for key, item in tree.items()}
    if isinstance(tree, list):
        return [_copy(item) for item in tree]
    return tree


def to_json(tree: Any) -> bytes:
    """JSON as a careless program writes it: NaN, infinities and lone surrogates included."""
    try:
        return json.dumps(tree, default=str).encode()
    except (RecursionError, ValueError):
        return b"[" * 100000


def to_toml(tree: Any) -> bytes:
    """TOML with inline tables; what TOML has no form for is left out."""
    try:
        if not isinstance(tree, dict):
            return b"x = " + _toml(tree).encode("utf-8", "replace")
        lines = [f"{_key(k)} = {_toml(v)}" for k, v in tree.items() if not isinstance(v, dict)]
        for key, table in tree.items():
            if isinstance(table, dict):
                lines.append(f"[{_key(key)}]")
                lines += [f"{_key(k)} = {_toml(v)}" for k, v in table.items()]
        return "\n".join(lines).encode("utf-8", "replace")
    except (RecursionError, ValueError):
        return b"x = " + b"[" * 100000


def _key(key: Any) -> str:
    return json.dumps(str(key), ensure_ascii=False).replace("\x7f", "")


def _toml(item: Any) -> str:
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, int):
        # Decimal text of a huge number is refused by Python itself; hexadecimal is not.
        return hex(item) if item > 1 << 64 else str(item)
    if isinstance(item, float):
        return repr(item)
    if isinstance(item, str):
        return json.dumps(item, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(item, list):
        return "[" + ", ".join(_toml(x) for x in item) + "]"
    if isinstance(item, dict):
        return "{" + ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in item.items()) + "}"
    if isinstance(item, (datetime.datetime, datetime.time)):
        return item.isoformat()
    return '""'


#: Paths that lead out of a folder somewhere.
PATHS = (
    "../x", "../../x", "/tmp/x", "/x", "a/../../x", "..\\x", "C:\\x", "C:x", "//host/x", "./../x",
    "x\x00y", "x/", "", ".", "..", "a/./b", "x" * 300, "con", "x\ny", "~/x", "-rf", "é/x", "\\x",
)  # fmt: skip
