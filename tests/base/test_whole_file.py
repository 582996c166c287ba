"""Files are written whole or not at all, with the rights their folder and owner ask for."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from gabactl import InputError
from gabactl.base.files import whole_file, write_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="rights and links are POSIX's")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize(("umask", "expected"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_new_file_has_what_the_umask_leaves(tmp_path: Path, umask: int, expected: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "text")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.txt") == expected


@posix
def test_a_replaced_file_keeps_its_rights(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    file.chmod(0o600)
    write_text(file, "new")
    assert (file.read_text(), mode(file)) == ("new", 0o600)


@posix
def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine")
    (tmp_path / "a.txt").symlink_to(elsewhere)
    write_text(tmp_path / "a.txt", "text")
    assert elsewhere.read_text() == "mine"
    assert not (tmp_path / "a.txt").is_symlink()


def _write_half(file: Path) -> None:
    with whole_file(file) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_nothing_is_left_where_the_writing_fails(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _write_half(file)
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_remedy_makes_it_one_line(tmp_path: Path) -> None:
    nowhere = tmp_path / "absent" / "a.txt"
    with (
        pytest.raises(InputError, match=r"cannot be written \(No such file.*choose another"),
        whole_file(nowhere, "choose another place"),
    ):
        pass
    with pytest.raises(FileNotFoundError), whole_file(nowhere):
        pass
