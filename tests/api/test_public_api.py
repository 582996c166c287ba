"""The public interface changes only on purpose, and with a line in the changelog."""

import ast
import textwrap

from api import public_api


def test_interface_is_as_recorded():
    changes = public_api.difference()
    assert not changes, (
        "the public interface changed: tell it in CHANGELOG.md, then run\n"
        "  python tests/api/public_api.py --write\n" + "\n".join(changes[:40])
    )


def _lines(source: str) -> list[str]:
    return list(public_api._module("m", ast.parse(textwrap.dedent(source))))


SOURCE = """
    __all__ = ["Settings", "act", "LIMIT"]
    LIMIT = 3

    def act(x: int, *, slow: bool = False) -> float:
        return float(x)

    def hidden(): ...

    class Settings(Base):
        beta: float = 0.99
        _private: int = 0

        @property
        def pole(self) -> float: ...

        @classmethod
        def read(cls, path: str) -> "Settings": ...

        def _inner(self): ...
    """


def test_reads_names_signatures_and_members():
    assert _lines(SOURCE) == [
        "m.LIMIT",
        "class m.Settings(Base)",
        "m.Settings.beta: float = 0.99",
        "m.Settings.pole -> float",
        "classmethod m.Settings.read(cls, path: str) -> 'Settings'",
        "m.act(x: int, *, slow: bool=False) -> float",
    ]


def test_sees_a_changed_default_and_a_renamed_argument():
    for before, after in [("slow: bool = False", "slow: bool = True"), ("x: int", "y: int")]:
        assert _lines(SOURCE.replace(before, after)) != _lines(SOURCE)


def test_private_names_may_change_freely():
    changed = SOURCE.replace("def hidden()", "def hidden(x)").replace("_private: int", "_p: str")
    assert _lines(changed) == _lines(SOURCE)


def test_writing_needs_a_changelog_line(tmp_path, monkeypatch, capsys):
    snapshot = tmp_path / "public_api.txt"
    monkeypatch.setattr(public_api, "SNAPSHOT", snapshot)
    monkeypatch.setattr("sys.argv", ["public_api.py", "--write"])
    snapshot.write_text(f"{public_api._MARK}{public_api.changelog_digest()}\ngabactl.old\n")
    assert public_api.main() == 1
    assert "CHANGELOG.md says nothing" in capsys.readouterr().err
    snapshot.write_text(f"{public_api._MARK}0\ngabactl.old\n")
    assert public_api.main() == 0
    assert public_api.difference() == []
