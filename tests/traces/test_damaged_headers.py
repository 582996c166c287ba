"""No flipped bit of a header is read as another setting, task or number."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.law.spec import GabaSpec
from gabactl.traces import Trace, TraceWriter, read_trace, write_parquet
from gabactl.traces.metadata import dump_metadata, parse_metadata

SPEC = GabaSpec(beta=0.95, floor=0.02, warmup=1)
NORMS = np.random.default_rng(0).lognormal(size=(3, 2))


def stream(path: Path) -> Path:
    metadata = {"spec": SPEC.to_dict(), "seed": 3}
    with TraceWriter(path, ["rul", "health"], groups=["grad_norm"], metadata=metadata) as writer:
        rows = {"grad_norm_rul": NORMS[:, 0], "grad_norm_health": NORMS[:, 1]}
        writer.append({"step": [1, 2, 3], **rows})
    return path


def parquet(path: Path) -> Path:
    metadata = {"spec": SPEC.to_dict(), "seed": 3}
    return write_parquet(Trace.from_arrays(NORMS, tasks=("rul", "health"), metadata=metadata), path)


def essence(trace: Trace) -> str:
    """What an analysis uses."""
    values = [trace.grad_norms.tolist(), trace.step.tolist(), list(trace.tasks)]
    spec = None if trace.spec is None else trace.spec.to_dict()
    return json.dumps([*values, spec, trace.metadata.get("seed")])


@pytest.mark.parametrize(("make", "suffix"), [(stream, "arrows"), (parquet, "parquet")])
def test_no_flipped_bit_of_a_header_changes_what_is_read(make, suffix: str, tmp_path: Path) -> None:
    good = make(tmp_path / f"good.{suffix}")
    data, expected = good.read_bytes(), essence(read_trace(good))
    rng = random.Random(0)
    if suffix == "arrows":
        at = data.index(b'{"schema_version"')
        inside = list(range(at, data.index(b"}", data.index(b'"crc32"')) + 1))
    else:  # pyarrow goes by its own copy of the schema, in base64
        inside = rng.sample(range(data.index(b"ARROW:schema"), len(data) - 8), 300)
    around = rng.sample([n for n in range(8, len(data) - 8) if n not in inside], 150)
    bad, refused = tmp_path / f"bad.{suffix}", 0
    for byte in inside + around:
        bit = rng.randrange(8)
        bad.write_bytes(data[:byte] + bytes([data[byte] ^ 1 << bit]) + data[byte + 1 :])
        try:
            trace = read_trace(bad)
        except InputError:
            refused += 1
            continue
        # A cut tail, and metadata without its key, are said to be missing, never invented.
        found = essence(trace)
        assert found == expected or trace.truncated, (byte, bit)
        if found != expected:
            assert trace.spec in (None, SPEC), (byte, bit)
            assert expected.startswith(json.dumps([trace.grad_norms.tolist()])[:-2])
    assert refused > 100


def test_a_file_without_the_checksum_or_in_another_spacing_is_read() -> None:
    metadata = {"schema_version": 1, "tasks": ["a", "b\N{SNOWMAN}"], "spec": {"beta": 0.5}}
    data = dump_metadata(metadata, "run")
    assert parse_metadata(data, "run") == metadata
    spaced = json.dumps(json.loads(data), indent=2, ensure_ascii=False).encode()
    assert parse_metadata(spaced, "run") == metadata
    assert parse_metadata(json.dumps(metadata).encode(), "run") == metadata
    assert dump_metadata({**metadata, "crc32": 1}, "run") == data


@pytest.mark.parametrize("crc", [0, "x", None, 1.5, [], True])
def test_another_checksum_is_refused_with_its_remedy(crc: object) -> None:
    data = json.dumps({"schema_version": 1, "tasks": ["a", "b"], "crc32": crc}).encode()
    with pytest.raises(
        InputError, match=r"checksum of the trace metadata differs.*leave crc32 out"
    ):
        parse_metadata(data, "run")


def test_the_former_name_of_a_key_is_read_as_its_present_one() -> None:
    old = {"schema_version": 1, "tasks": ["a", "b"], "optimiser": "AdamW"}
    found = parse_metadata(json.dumps(old).encode(), "run")
    assert found["optimizer"] == "AdamW"
    assert "optimiser" not in found
