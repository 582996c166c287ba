"""What a reader is, and what it may answer.

A reader may answer with a value or with :class:`gabactl.base.errors.InputError`, in one short printable
line. What it returns must print, and become JSON. Anything else is a finding.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import gabactl
from hostile import mutate

READERS: dict[str, type[Reader]] = {}


class Reader:
    """One reader: good inputs, bad inputs, and the reading.

    Parameters
    ----------
    folder : path
        The only place in which a file may appear.
    """

    #: Name of the reader, and of the folder of its cases.
    name: ClassVar[str]
    #: Modules whose coverage guides the search.
    modules: ClassVar[tuple[str, ...]]
    #: Bytes of address space on top of what the idle process has.
    memory: ClassVar[int] = 1 << 30
    #: Packages without which it is left out.
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds: list[bytes] = self.good()

    def __init_subclass__(cls) -> None:
        if hasattr(cls, "name"):
            READERS[cls.name] = cls

    def good(self) -> list[bytes]:
        """Inputs that are read without complaint."""
        raise NotImplementedError

    def bad(self, rng: random.Random) -> bytes:
        """One bad input."""
        raise NotImplementedError

    def read(self, data: bytes) -> Any:
        """Read it as the program would; the result prints and becomes JSON."""
        raise NotImplementedError

    def two(self, rng: random.Random) -> tuple[bytes, bytes]:
        """Two of the good inputs."""
        return rng.choice(self.seeds), rng.choice(self.seeds)

    def put(self, name: str, data: bytes) -> Path:
        """The data as a file."""
        file = self.folder / name
        with open(file, "wb") as sink:
            sink.write(data)
        return file


class JsonReader(Reader):
    """A reader of one JSON object, which :meth:`good` keeps as ``tree``."""

    tree: dict[str, Any]

    def bad(self, rng: random.Random) -> bytes:
        if rng.random() < 0.7:
            return mutate.to_json(mutate.tree_of(rng, self.tree, tuple(self.tree)))
        return mutate.words_of(rng, *self.two(rng))


def is_ours(file: str) -> bool:
    """Whether it is a file of the package: libraries may lie in a checkout of that name."""
    return Path(file).is_relative_to(Path(gabactl.__file__).parent)


def show(*results: Any) -> None:
    """Print and write as JSON, as the command line would."""
    for result in results:
        str(result).encode("utf-8")
        result.to_json().encode("utf-8")


def check_line(error: Exception) -> None:
    """An answer is one short printable line."""
    from gabactl.base.errors import printable

    text = str(error)
    if not text or printable(text) != text or len(text) > 1200:
        raise AssertionError(f"the answer is not one short printable line: {text[:300]!r}")


def refusal(reader: Reader, data: bytes) -> str | None:
    """The line with which a reader refuses; None where it takes the input. All else is raised."""
    from gabactl.base.errors import InputError

    try:
        reader.read(data)
    except InputError as error:
        check_line(error)
        return str(error)
    return None
