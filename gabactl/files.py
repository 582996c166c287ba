"""Writing a text file whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

__all__ = ["write_text"]


def write_text(path: str | Path, text: str) -> Path:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part.

    Parameters
    ----------
    path : path
        Replaced if it exists; its folder must exist.
    text : str
        The contents.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        It cannot be written; what was there is left as it was, and nothing beside it.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_text(folder / "a.txt", "text").read_text(encoding="utf-8")
    'text'
    """
    file = Path(path)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp makes files for their owner alone.
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return file
