"""The report: its findings, the page, the command."""

import json
import re

import numpy as np
import pytest

from gabactl.base.errors import InputError
from gabactl.cli import main
from gabactl.law.spec import GabaSpec
from gabactl.reports import report, write_html, write_pdf
from gabactl.reports.pdf import find_browser
from gabactl.runs.replay import replay
from gabactl.traces import Trace, bundled, load_bundled, write_parquet

STEPS = 100_000


def recorded(ratio=500.0, steps=900, names=("rul", "health"), spec=None, **metadata):
    """A run as training would have recorded it, with a real replay inside."""
    spec = spec or GabaSpec()
    rng = np.random.default_rng(0)
    norms = np.exp(rng.normal(0, 0.3, (steps, 2))) * [ratio, 1.0]
    run = replay(spec, norms)
    return Trace.from_arrays(
        norms,
        tasks=names,
        raw=run.raw,
        ema=run.ema,
        weights=run.weights,
        losses=np.stack([np.linspace(5000, 300, steps), np.linspace(1.1, 0.4, steps)], axis=1),
        metadata={"spec": spec.to_dict(), **metadata},
    )


@pytest.fixture(scope="module")
def found():
    return report(recorded(), fuzz_steps=STEPS)


def test_every_section_agrees_with_the_theory(found):
    data = json.loads(found.to_json())
    assert data["bounds"]["bounds"] == pytest.approx([1 / 21, 20 / 21])
    assert data["bounds"]["stated_lower_holds"] is False
    assert data["filter"]["time_constant_steps"] == pytest.approx(99.499, abs=5e-4)
    assert data["filter"]["settling_updates"] == 390
    assert data["units"]["median_ratio"] == pytest.approx(500, rel=0.1)
    assert data["units"]["dwarfed"] is True
    assert data["saturation"]["verdict"].startswith("Yes")
    assert data["saturation"]["floor_needed"] < 1 / 501
    assert data["replay"]["max_abs_error_ema"] <= 1e-12
    assert data["replay"]["max_abs_error_weights"] <= 1e-12
    assert data["fuzz"]["violations"] == 0
    assert data["fuzz"]["steps"] >= STEPS
    settled = [r["settled_contribution_ratio"] for r in data["step_response"]["responses"]]
    assert settled == pytest.approx([2.55, 120.05, 25.05], abs=0.01)
    assert set(data["comparison"]["balancers"]) == {
        "gaba",
        "gradnorm (chen2018)",
        "gradnorm (textbook)",
        "equal",
    }


def test_the_page_stands_alone(found, tmp_path):
    page = write_html(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(?:src|srcset|href)=\"(?!data:|#)", page)
    assert "@import" not in page
    assert page.count("data:image/svg+xml;base64,") == 8  # four pictures, wide and narrow
    assert len(page) < 2_000_000
    block = re.search(r'<script type="application/json" id="gabactl-data">(.*?)</script>', page)
    assert json.loads(block.group(1)) == json.loads(found.to_json())


def test_names_from_a_file_cannot_break_out_of_the_page(tmp_path):
    evil = "</script><script>alert(1)</script>"
    trace = recorded(names=("<b>x</b>", "health"), command=evil).replace(source=evil)
    page = write_html(report(trace, fuzz_steps=STEPS), tmp_path / "r.html").read_text(
        encoding="utf-8"
    )
    assert "<script>alert" not in page
    assert "<b>x</b>" not in page


def test_nothing_half_written_is_left_behind(found, tmp_path, monkeypatch):
    import os

    (tmp_path / "report.html").write_text("the old one")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(InputError, match="No space left"):
        write_html(found, tmp_path / "report.html")
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "the old one"


def test_a_run_of_another_balancer_is_not_called_an_error():
    trace = recorded()
    trace = trace.replace(
        raw=None,
        ema=None,
        weights=np.full_like(trace.grad_norms, 0.5),
        metadata={"balancer": "fixed"},
    )
    found = report(trace, fuzz_steps=STEPS)
    assert found.replay.ok is None
    assert "not compared" in str(found)


def test_too_few_fuzz_steps_are_refused():
    with pytest.raises(InputError, match="below 100,000"):
        report(recorded(), fuzz_steps=10)


def test_no_reading_is_refused():
    with pytest.raises(InputError, match="no gradient norm"):
        report(Trace.from_arrays(np.full((50, 2), np.nan)), fuzz_steps=STEPS)


class TestCommand:
    def test_on_a_file(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write_parquet(recorded(), tmp_path / "run.parquet")
        assert main(["report", "run.parquet", "--fuzz-steps", str(STEPS)]) == 0
        out = capsys.readouterr().out
        assert "floor saturated?" in out
        assert "written: report.html" in out
        assert (tmp_path / "report.html").exists()

    def test_json_is_strict_and_alone_on_stdout(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        write_parquet(recorded(), tmp_path / "run.parquet")
        arguments = ["report", "run.parquet", "--json", "--fuzz-steps", str(STEPS)]
        assert main([*arguments, "--floor", "0.0001", "-o", "r.html"]) == 0

        def refuse(constant):
            raise AssertionError(constant)

        data = json.loads(capsys.readouterr().out, parse_constant=refuse)
        assert data["spec"]["floor"] == 0.0001
        assert data["saturation"]["verdict"].startswith("No")

    @pytest.mark.skipif(not bundled(), reason="this copy has no bundled traces")
    def test_without_a_trace_it_takes_a_bundled_one_and_needs_no_torch(
        self, tmp_path, monkeypatch, capsys
    ):
        import sys

        monkeypatch.chdir(tmp_path)
        monkeypatch.setitem(sys.modules, "torch", None)
        assert main(["report", "--fuzz-steps", str(STEPS)]) == 0
        assert "agrees: largest error" in capsys.readouterr().out


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_run_replays(name):
    found = report(load_bundled(name), fuzz_steps=STEPS)
    assert found.replay.ok is not False
    assert found.fuzz.violations == 0


class TestPdf:
    def test_no_browser_is_said_before_the_work(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.delenv("GABACTL_BROWSER", raising=False)
        assert main(["report", "--pdf", str(tmp_path / "r.pdf")]) == 2
        assert "no browser of the Chromium family" in capsys.readouterr().err

    def test_a_browser_that_prints_nothing_is_said(self, found, tmp_path, monkeypatch):
        monkeypatch.setenv("GABACTL_BROWSER", "true")
        page = write_html(found, tmp_path / "report.html")
        with pytest.raises(InputError, match="wrote no PDF"):
            write_pdf(page, tmp_path / "report.pdf")
        assert not (tmp_path / "report.pdf").exists()

    def test_printed(self, found, tmp_path):
        try:
            find_browser()
        except InputError:
            pytest.skip("no Chromium browser is installed")
        page = write_html(found, tmp_path / "report.html")
        data = write_pdf(page, tmp_path / "report.pdf").read_bytes()
        assert data.startswith(b"%PDF")
        assert 50_000 < len(data) < 2_000_000
