"""Checkpoint files that are small and would keep torch busy, or fill the memory."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
import torch

from gabactl.base.errors import InputError
from gabactl.nn.checkpoint import check_optimizer, check_schedule, load_tensors


def _rewritten(plain: bytes, how: int = zipfile.ZIP_STORED) -> bytes:
    """A file of torch's with other bytes where its values are."""
    good, bad = io.BytesIO(), io.BytesIO()
    torch.save({"step": 3}, good)
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w", how) as target:
        for member in source.infolist():
            values = member.filename.endswith("data.pkl")
            target.writestr(member.filename, plain if values else source.read(member))
    return bad.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        # Half a minute in the pattern with which torch searches its own refusal.
        _rewritten(b"\x80\x02c" + b"a" * 200_000 + b"\nb\n."),
        _rewritten(b"\x80\x02X" + (200_000).to_bytes(4, "little") + b"a" * 200_000 + b"R."),
        # A thousand times its size in memory.
        _rewritten(b"\x80\x02}." + bytes(1 << 24), zipfile.ZIP_DEFLATED),
        _rewritten(b"\x80\x02}." + bytes(65 << 20)),
        b"no archive",
        b"",
    ],
    ids=["long-global", "long-text", "compressed", "many-values", "no-archive", "empty"],
)
def test_torch_does_not_see_traps(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *a, **k: seen.append(a))
    file = tmp_path / "run.ckpt"
    file.write_bytes(data)
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_tensors(file)
    assert not seen
    file.write_bytes(_rewritten(b"\x80\x02}q\x00X\x04\x00\x00\x00stepq\x01K\x03s."))
    load_tensors(file)
    assert seen


@pytest.mark.filterwarnings("error")
def test_a_strange_escape_is_no_warning(tmp_path: Path) -> None:
    file = tmp_path / "run.ckpt"
    file.write_bytes(_rewritten(b"\x80\x02S'\\J'\n."))
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load_tensors(file)


def test_what_torch_wrote_is_read(tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    state = {"name": "x" * 8000, "values": torch.arange(100_000), "list": [1, 2.5, None, True]}
    torch.save(state, file)
    again = load_tensors(file)
    assert again["name"] == state["name"]
    assert torch.equal(again["values"], state["values"])


def _optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.1)


@pytest.mark.parametrize("rate", [1e300, 0.2, -0.1, float("nan"), float("inf")])
def test_a_rate_that_no_schedule_gives(rate: float) -> None:
    saved = _optimizer().state_dict()
    saved["param_groups"][0]["lr"] = 0.05
    assert check_optimizer(saved, _optimizer())["param_groups"][0]["lr"] == 0.05
    saved["param_groups"][0]["lr"] = rate
    with pytest.raises(ValueError, match="rate"):
        check_optimizer(saved, _optimizer())


@pytest.mark.parametrize("option", ["factor", "min_lrs", "patience", "threshold", "mode"])
def test_a_scheduler_with_other_options(option: str) -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(_optimizer())
    saved = plateau.state_dict()
    other = {"min_lrs": [0.3], "mode": "max"}
    with pytest.raises(ValueError, match="other options"):
        check_schedule({**saved, option: other.get(option, saved[option] * 2)}, plateau)
    check_schedule({**saved, "best": 3.0, "last_epoch": 4, "_last_lr": [0.05]}, plateau)
