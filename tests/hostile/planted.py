"""A reader with every fault there is, to see that each is found. Run as ``hostile.child`` is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hostile.child import main
from hostile.readers import Reader

#: What input n does; 0 to 2 are harmless.
FAULTS = (
    "takes it", "refuses it", "takes it", "raises", "says two lines", "writes outside",
    "removes outside", "runs a program", "runs code", "takes memory", "dies", "hangs", "takes it",
)  # fmt: skip


class Planted(Reader):
    """Input n has fault n of the list."""

    name = "planted"
    modules = ("gabactl.base.errors",)
    memory = 256 << 20

    def good(self) -> list[bytes]:
        return [b"0"]

    def bad(self, rng: random.Random) -> bytes:
        self.number = getattr(self, "number", -41) + 1
        return b"0" if self.number < 0 else str(self.number + self.first).encode()

    first = 0

    def read(self, data: bytes) -> Any:
        from gabactl.base.errors import InputError

        what = FAULTS[int(data)]
        if what == "refuses it":
            raise InputError("no")
        if what == "raises":
            raise KeyError("missing")
        if what == "says two lines":
            error = InputError("x")
            error.args = ("one\ntwo",)
            raise error
        if what == "writes outside":
            Path("stray").write_text("x")
        if what == "removes outside":
            os.remove(__file__)
        if what == "runs a program":
            subprocess.run(["true"])
        if what == "runs code":
            exec("1 + 1")
        if what == "takes memory":
            bytearray(1 << 30)
        if what == "dies":
            os.abort()
        while what == "hangs":
            time.sleep(0)
        return None


if __name__ == "__main__":
    Planted.first = int(sys.argv[3])
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
