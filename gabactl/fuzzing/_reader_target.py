"""The process that atheris drives: bytes to a file, the file to the readers."""

from __future__ import annotations

import os
import sys
import tempfile


def main() -> None:
    """Fuzz until libFuzzer ends the process; only InputError is an answer of a reader."""
    import atheris  # type: ignore[import-untyped]

    # The readers are instrumented while they are imported.
    with atheris.instrument_imports(include=["gabactl.traces"]):
        from gabactl.traces.reader import iter_trace, read_trace
    from gabactl.base.errors import InputError

    path = os.path.join(tempfile.mkdtemp(), "trace")
    entries = (
        lambda: read_trace(path),
        lambda: read_trace(path, salvage=True),
        lambda: list(iter_trace(path)),
    )

    def read_bytes(data: bytes) -> None:
        with open(path, "wb") as file:
            file.write(data)
        for read in entries:
            try:
                read()
            except InputError:
                continue

    atheris.Setup(sys.argv, read_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
