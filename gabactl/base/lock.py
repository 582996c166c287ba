"""One writer at a time: a lock of the operating system, gone with the process that held it."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import secrets
import sys
import time
import weakref
from pathlib import Path

from gabactl.base.errors import InputError, Occupied

#: What file systems say that cannot lock (some network mounts).
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
#: Locks of this process, for the message; of a process it was forked from, under the other's id.
_held: set[tuple[int, str]] = set()
_locks: weakref.WeakSet[FileLock] = weakref.WeakSet()


class FileLock:
    """An exclusive lock on ``<path>.lock``, which is removed again on release.

    A separate file, because Windows locks keep readers out, and because the trace itself may be
    replaced while it is locked. It lies beside what links lead to; a second name of the same file
    (a hard link) is seen by :meth:`cover`. A fork of the holder holds nothing: it may live on
    after the holder, as the workers of a data loader do.

    On a file system without locks, the file says by host and process who made it, and counts while
    that process lives. Whether one of another host lives cannot be known: the message says which
    file to delete when it does not.

    Parameters
    ----------
    path : path
        What is being written.
    doing : str
        What a holder of the lock does, for the message.
    patience : float
        Seconds that ``with`` waits for another holder; :meth:`acquire` waits for none.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "run.arrows"
    >>> first, second = FileLock(file), FileLock(file)
    >>> first.acquire()
    >>> second.acquire()
    Traceback (most recent call last):
        ...
    gabactl.base.errors.Occupied: ...run.arrows: this process is recording into it already: end that first, or choose another place
    >>> first.release()
    """

    def __init__(
        self, path: str | Path, doing: str = "recording into it", patience: float = 0.0
    ) -> None:
        self._path = Path(path)
        self._doing = doing
        self._patience = patience
        real = Path(os.path.realpath(self._path))
        self._file = real.with_name(real.name + ".lock")
        self._descriptor: int | None = None
        self._covered: int | None = None
        _locks.add(self)

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                self.acquire()
                return self
            except Occupied:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, or refuse at once.

        Raises
        ------
        InputError
            Another process has it, or the folder cannot be written.
        """
        while True:
            try:
                descriptor, made = _open(self._file)
            except OSError as error:
                raise InputError(
                    f"{self._path}: cannot be written ({error.strerror}): check that the "
                    "folder exists and can be written"
                ) from None
            locked = _try_lock(descriptor)
            if locked is None:
                locked = made
                if made:
                    os.write(descriptor, f"{platform.node()} {os.getpid()}".encode())
                elif self._left_behind(descriptor):
                    os.close(descriptor)
                    continue
            if not locked:
                os.close(descriptor)
                raise Occupied(self._refusal())
            # The holder before us may have removed the file between our open and our lock.
            if same_file(descriptor, self._file):
                self._descriptor = descriptor
                _held.add(self._key)
                return
            os.close(descriptor)

    @property
    def _key(self) -> tuple[int, str]:
        return os.getpid(), str(self._file.absolute())

    def _refusal(self) -> str:
        if self._key in _held:
            return (
                f"{self._path}: this process is {self._doing} already: end that first, or choose "
                "another place"
            )
        return (
            f"{self._path}: another process is {self._doing}: wait for it, or choose another place"
        )

    def _left_behind(self, descriptor: int) -> bool:
        """Whether the file was made by a process that is gone: then it is removed."""
        written = os.pread(descriptor, 1000, 0) if hasattr(os, "pread") else b""
        host, _, number = written.decode(errors="replace").rpartition(" ")
        if host != platform.node() or not number.isdigit():
            raise Occupied(
                f"{self._path}: another process{f' on {host}' if host else ''} is {self._doing}: "
                f"wait for it, or delete {self._file.name} if it is gone (this file system has no "
                "locks)"
            )
        if lives(int(number)):
            return False
        # Under a name of our own first: two that find it must not remove each other's new one.
        aside = self._file.with_name(f".{self._file.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):
            os.rename(self._file, aside)
            if not same_file(descriptor, aside):
                os.rename(aside, self._file)
            aside.unlink(missing_ok=True)
        return True

    def cover(self, descriptor: int) -> None:
        """Lock an open file too, under whatever names it has; not on Windows.

        Parameters
        ----------
        descriptor : int
            Of the file; :meth:`uncover` comes before it is closed.

        Raises
        ------
        Occupied
            It is locked, under another name.
        """
        if sys.platform == "win32":
            return
        if _try_lock(descriptor) is False:
            raise Occupied(
                f"{self._path}: another process is {self._doing}, under another name of the same "
                "file: wait for it, or choose another place"
            )
        self._covered = descriptor

    def uncover(self) -> None:
        """Forget the file of :meth:`cover`, whose lock goes when it is closed."""
        self._covered = None

    def _forked(self) -> None:
        """In a fork: let go of what was inherited, without unlocking it for the holder."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for descriptor in (self._descriptor, self._covered):
            if descriptor is not None:
                os.dup2(nothing, descriptor, inheritable=False)
        os.close(nothing)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._covered = None

    def release(self) -> None:
        """Let go; a second call does nothing."""
        if self._descriptor is None:
            return
        descriptor, self._descriptor = self._descriptor, None
        _held.discard(self._key)
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


def _open(file: Path) -> tuple[int, bool]:
    """The file, and whether this made it."""
    for _ in range(100):  # it may vanish between the two, and come again
        with contextlib.suppress(FileExistsError):
            return os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), True
        with contextlib.suppress(FileNotFoundError):
            return os.open(file, os.O_RDWR), False
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


def lives(process: int) -> bool:
    """Whether a process of this machine is still there; where that cannot be known, yes.

    Parameters
    ----------
    process : int
        Its number.

    Examples
    --------
    >>> lives(os.getpid())
    True
    """
    if sys.platform == "win32":  # where asking with signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> bool | None:
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return None if error.errno in _NO_LOCKS else False
        return True

else:
    import fcntl

    def _try_lock(descriptor: int) -> bool | None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return None if error.errno in _NO_LOCKS else False
        return True


def _let_go() -> None:
    for lock in list(_locks):
        lock._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
