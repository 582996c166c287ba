"""Download C-MAPSS, and believe nothing about what arrives until its SHA-256 fits.

Only the twelve known files are taken out of the archive, under their own names, so no path, link
or surprise in it can reach the disk.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from gabactl.base.errors import InputError
from gabactl.base.files import whole_file
from gabactl.cmapss.files import CHECKSUMS, MAX_FILE_BYTES, members

#: NASA's Prognostics Data Repository, item 6.
NASA_URL = (
    "https://phm-datasets.s3.amazonaws.com/NASA/"
    "6.+Turbofan+Engine+Degradation+Simulation+Data+Set.zip"
)

#: The archive is 12 MB; its twelve files unpack to 43 MB.
MAX_DOWNLOAD_BYTES = 128 << 20
_MAX_REDIRECTS = 5
_CHUNK = 1 << 16
_SYMLINK = 0o120000
_DIRECTORY = 0o040000
_REGULAR = 0o100000

#: Called with bytes so far and, where the server says, bytes in all.
OnBytes = Callable[[int, int | None], None]


def fetch(
    folder: str | Path,
    url: str = NASA_URL,
    *,
    timeout: float = 30.0,
    on_bytes: OnBytes | None = None,
    force: bool = False,
) -> list[Path]:
    """Download the archive, check it and put the twelve files into ``folder``.

    Nothing appears in the folder before everything has been checked.

    Parameters
    ----------
    folder : path
        Where to; made if need be.
    url : str
        Where from, http or https.
    timeout : float, positive
        Seconds without a byte after which the download is given up.
    on_bytes : callable, optional
        For a progress bar.
    force : bool
        Replace files of these names that differ.

    Returns
    -------
    list of path
        The files.

    Raises
    ------
    InputError
        The place cannot be written or holds other files of these names, the download fails, is too
        large or cut short, or the archive is not the right one.

    Examples
    --------
    >>> files = fetch("CMAPSSData")  # doctest: +SKIP
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fetch(folder, "ftp://example.org/CMAPSSData.zip")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: ftp://example.org/CMAPSSData.zip: only http and https addresses are fetched
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        if not force:
            _refuse_others(target)
        # A temporary folder beside the target, so that moving a file is one rename.
        with tempfile.TemporaryDirectory(prefix=".cmapss-", dir=target) as temporary:
            archive = Path(temporary) / "archive.zip"
            download(url, archive, timeout=timeout, on_bytes=on_bytes)
            unpacked = Path(temporary) / "files"
            unpacked.mkdir()
            for file in unpack(archive, unpacked):
                os.replace(file, target / file.name)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}): choose another place"
        ) from None
    return [target / name for name in CHECKSUMS]


def download(
    url: str,
    file: str | Path,
    *,
    timeout: float = 30.0,
    max_bytes: int = MAX_DOWNLOAD_BYTES,
    on_bytes: OnBytes | None = None,
) -> None:
    """Download over http or https into a file.

    Parameters
    ----------
    url : str
        Where from. At most 5 redirects are followed, never from https to http, and to no other
        scheme.
    file : path
        Where to.
    timeout : float, positive
        Seconds without a byte after which the download is given up.
    max_bytes : int
        More is refused, whatever the server announced.
    on_bytes : callable, optional
        For a progress bar.

    Raises
    ------
    InputError
        One line about what went wrong.

    Examples
    --------
    >>> download("file:///etc/hostname", "x.zip")
    Traceback (most recent call last):
        ...
    gabactl.base.errors.InputError: file:///etc/hostname: only http and https addresses are fetched
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url}: no address ({error}): give one as https://HOST/FILE") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url}: only http and https addresses are fetched")
    if not timeout > 0:
        raise InputError(f"timeout = {timeout} is not positive: choose for example 30")
    opener = urllib.request.build_opener(_Redirects)
    request = urllib.request.Request(url, headers={"User-Agent": "gabactl"})
    try:
        with opener.open(request, timeout=timeout) as answer, open(file, "wb") as sink:
            _copy(answer, sink, url, max_bytes, on_bytes)
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: the server says {error.code} {error.reason}") from None
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise InputError(f"{url}: the download failed ({reason}): try again") from None
    except ConnectionError as error:
        raise InputError(f"{url}: the connection broke ({error}): try again") from None


def _copy(answer: Any, sink: IO[bytes], url: str, max_bytes: int, on_bytes: OnBytes | None) -> None:
    announced = answer.headers.get("Content-Length", "")
    total = int(announced) if announced.isdigit() else None
    too_large = f"{url}: more than {max_bytes >> 20} MiB, which the archive is not"
    if total is not None and total > max_bytes:
        raise InputError(too_large)
    done = 0
    while chunk := answer.read(_CHUNK):
        done += len(chunk)
        if done > max_bytes:
            raise InputError(too_large)
        sink.write(chunk)
        if on_bytes is not None:
            on_bytes(done, total)
    if total is not None and done < total:
        raise InputError(f"{url}: ended after {done} of {total} bytes: try again")


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MAX_REDIRECTS

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        old, new = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise InputError(
                f"{req.full_url}: redirects to {newurl}, which is less safe: not followed"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack(archive: str | Path, folder: str | Path) -> list[Path]:
    """Take the twelve files out of NASA's archive, each checked against its SHA-256.

    Parameters
    ----------
    archive : path
        Zip file; the files may lie in any folder of it, or in one zip file inside it.
    folder : path
        An existing folder, into which nothing but the twelve names is written.

    Returns
    -------
    list of path
        The twelve files, in ``folder``.

    Raises
    ------
    InputError
        A damaged archive, an entry with a path that leads out of it, a link, two entries of one
        name, sizes that no C-MAPSS archive has, a missing file or one that differs.

    Examples
    --------
    What leads out of the folder is refused:

    >>> import tempfile, zipfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     archive = Path(folder) / "archive.zip"
    ...     with zipfile.ZipFile(archive, "w") as file:
    ...         file.writestr("../train_FD001.txt", "1 1")
    ...     try:
    ...         unpack(archive, folder)
    ...     except InputError as refused:
    ...         print(str(refused).replace(folder, "")[1:])
    archive.zip: entry '../train_FD001.txt' points out of the archive: not unpacked
    """
    label = str(archive)
    found: dict[str, Path] = {}
    for name, data in members(archive, label, CHECKSUMS, _refuse_unsafe):
        if name in found:
            raise InputError(f"{label}: holds {name} twice: not unpacked")
        digest = hashlib.sha256(data).hexdigest()
        if digest != CHECKSUMS[name]:
            raise InputError(
                f"{label}: {name} has SHA-256 {digest}, not NASA's {CHECKSUMS[name]}: "
                "the archive is damaged or not the original"
            )
        found[name] = Path(folder) / name
        with whole_file(found[name], "check the space") as sink:
            sink.write(data)
    missing = [name for name in CHECKSUMS if name not in found]
    if missing:
        raise InputError(
            f"{label}: the archive has no {missing[0]}"
            + (f" (and {len(missing) - 1} others are missing)" if len(missing) > 1 else "")
            + ": give the address of NASA's archive"
        )
    return [found[name] for name in CHECKSUMS]


def _refuse_unsafe(entry: zipfile.ZipInfo, label: str) -> None:
    name = entry.filename
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        raise InputError(f"{label}: entry {name[:60]!r} points out of the archive: not unpacked")
    kind = (entry.external_attr >> 16) & 0o170000
    if kind == _SYMLINK:
        raise InputError(f"{label}: entry {name[:60]!r} is a link: not unpacked")
    if kind not in (0, _DIRECTORY, _REGULAR):
        raise InputError(f"{label}: entry {name[:60]!r} is no ordinary file: not unpacked")


def _refuse_others(target: Path) -> None:
    for name, checksum in CHECKSUMS.items():
        file = target / name
        if not (file.exists() or file.is_symlink()):
            continue
        same = (
            file.is_file()
            and file.stat().st_size <= MAX_FILE_BYTES
            and hashlib.sha256(file.read_bytes()).hexdigest() == checksum
        )
        if not same:
            raise InputError(
                f"{file}: is there already and is not NASA's file: move it away, or add --force"
            )
