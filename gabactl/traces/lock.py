"""One writer at a time: a lock of the operating system, gone with the process that held it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from gabactl.errors import InputError

__all__ = ["FileLock", "same_file"]

#: File systems that cannot lock (some network mounts): recording there goes on without.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


class FileLock:
    """An exclusive lock on ``<path>.lock``, which is removed again on release.

    A separate file, because Windows locks keep readers out, and because the trace itself may be
    replaced while it is locked.

    Parameters
    ----------
    path : path
        What is being written.
    doing : str
        What a holder of the lock does, for the message.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.arrows"
    >>> first, second = FileLock(file), FileLock(file)
    >>> first.acquire()
    >>> second.acquire()
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: ...run.arrows: another process is recording into it: wait for it, or choose another place
    >>> first.release()
    """

    def __init__(self, path: str | Path, doing: str = "recording into it") -> None:
        self._path = Path(path)
        self._doing = doing
        self._file = self._path.with_name(self._path.name + ".lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise :class:`InputError` at once."""
        while True:
            try:
                descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise InputError(
                    f"{self._path}: cannot be written ({error.strerror}): check that the "
                    "folder exists and can be written"
                ) from None
            if not _try_lock(descriptor):
                os.close(descriptor)
                raise InputError(
                    f"{self._path}: another process is {self._doing}: wait for it, or choose "
                    "another place"
                )
            # The holder before us may have removed the file between our open and our lock.
            if same_file(descriptor, self._file):
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
            with contextlib.suppress(OSError):
                self._file.unlink()
        else:
            with contextlib.suppress(OSError):
                self._file.unlink()
            os.close(descriptor)


def same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name.

    Parameters
    ----------
    descriptor : int
        Of the open file.
    path : path
        Its name.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     same_file(file.fileno(), Path(file.name)), same_file(file.fileno(), Path("nowhere"))
    (True, False)
    """
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True
