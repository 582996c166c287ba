"""Journeys through the dashboard in a browser; pictures are kept for reviewing by eye."""

from __future__ import annotations

import tomllib
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from browser import Page

from gabactl.app.state import TABS
from gabactl.law.authority import residual_ratio
from gabactl.law.controller import Controller
from gabactl.law.spec import GabaSpec
from gabactl.traces import load_bundled, write_parquet


def final_weights(spec: GabaSpec, name: str = "fd001-gaba") -> np.ndarray:
    """The last applied weights of a bundled run, stepped by hand."""
    trace, controller = load_bundled(name), Controller(spec)
    weights = None
    for norms, measured in zip(trace.grad_norms, trace.measured, strict=True):
        weights = controller.observe(norms if measured else None)
    return weights


def test_live_loop_follows_the_sliders(page: Page):
    page.open()
    _, y = page.wait_line("rul, applied", "y.length > 100")
    assert y[-1] == pytest.approx(final_weights(GabaSpec.published())[0], rel=1e-9)
    page.shot("live-light")
    page.set("slider-floor", -2.0)
    page.set("slider-beta", 1.5)
    page.set("box-warmup", 300)
    page.wait_value("box-beta", 0.9684)
    expected = final_weights(GabaSpec.published(floor=0.01, beta=0.9684, warmup=300))
    page.wait_line("rul, applied", f"Math.abs(y[y.length - 1] - {float(expected[0])!r}) < 1e-9")
    assert page.value("box-floor") == 0.01
    page.set("slider-step", 200)
    page.wait_text("At step 200 ")
    assert page.complaints() == []


def test_a_line_is_hidden_and_shown_by_its_name_under_the_figure(page: Page):
    shown = "return all.find(m => m.type === 'GlyphRenderer' && m.name === 'rul, applied').visible;"
    legend = (
        "const m = all.find(m => m.type === 'CheckboxButtonGroup' && "
        "m.labels.includes('rul, applied')); m.active = arguments[0]; return m.labels;"
    )
    labels = page.run(legend, [1, 2, 3])
    assert labels == ["rul, applied", "health, applied", "rul, average", "health, average"]
    assert page.run(shown) is False
    page.run(legend, [0, 1, 2, 3])
    assert page.run(shown) is True


def test_nothing_comes_from_elsewhere(page: Page):
    names = page.browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert len(names) > 3
    assert all(name.startswith(page.address) for name in names)


def test_the_address_restores_the_view(page: Page):
    page.wait("return location.search.includes('floor=0.01')")
    query = parse_qs(urlsplit(page.browser.current_url).query)
    assert query["warmup"] == ["300"]
    _, before = page.line("rul, applied")
    page.open("?" + urlsplit(page.browser.current_url).query)
    page.wait_line("rul, applied", "y.length > 100")
    _, after = page.line("rul, applied")
    assert after == before
    assert page.value("box-warmup") == 300


def test_a_hostile_address_is_answered_in_words(page: Page):
    page.open("?beta=nan&source=..%2Fetc&tab=%3Cscript%3E")
    text = page.wait_text("left out")
    assert "beta = 'nan' is not a number from 0 to 0.9999" in text
    assert page.value("box-beta") == 0.99


def test_sliders_are_reached_and_moved_by_keyboard(page: Page):
    from selenium.webdriver.common.keys import Keys

    page.open()
    page.wait_line("rul, applied", "y.length > 100")
    reached = []
    for _ in range(60):
        page.browser.switch_to.active_element.send_keys(Keys.TAB)
        label = page.browser.execute_script(
            "let e = document.activeElement; while (e && e.shadowRoot && e.shadowRoot.activeElement)"
            " e = e.shadowRoot.activeElement;"
            "return e.getAttribute('aria-label') || e.textContent.trim().slice(0, 30);"
        )
        reached.append(label)
        if label == "Floor m":
            break
    assert "Live loop" in reached
    assert "Your trace" in reached
    assert reached[-1] == "Floor m"
    page.browser.switch_to.active_element.send_keys(Keys.ARROW_LEFT * 5)
    page.wait_line("rul, applied", "Math.abs(y[y.length - 1] - 0.0477) > 5e-4")
    assert page.value("box-floor") < 0.05


def test_every_tab_opens_and_follows(page: Page):
    page.open()
    page.wait_line("rul, applied", "y.length > 100")
    page.click("tab-diagram")
    page.wait_text("reference 1/2")
    page.click("preset-500")
    text = page.wait_text("Settled at g₁/g₂ = 500")
    assert "0.998004" in text
    assert f"{float(residual_ratio(GabaSpec(), 500.0)):.2f}" in text
    page.shot("diagram")

    page.click("tab-crossing")
    page.wait_line("crossing: raw weight", f"Math.abs(x[0] - {1 / 501!r}) < 1e-9")
    page.set("slider-ratio", 1.0)
    page.wait_line("crossing: raw weight", f"Math.abs(x[0] - {1 / 11!r}) < 1e-9")
    page.set("box-ratio", 500)
    page.wait_line("applied weight", "Math.abs(x[0] - 0.0477099) < 1e-6")
    page.shot("crossing")

    page.click("tab-gradnorm")
    page.set("slider-progress_1", 0.25)
    page.set("slider-progress_2", 0.75)
    page.wait_text("0.0003848")  # 0.000385 in section 19.1 of the source
    page.shot("gradnorm")

    page.click("tab-frequency")
    page.wait_text("STABLE")
    page.set("slider-lag", 0.0)
    page.set("slider-delay", 1)
    page.set("box-rho", -99.0)
    page.set("box-ratio", 0)
    page.wait_text("is STABLE")
    page.set("box-rho", -101.0)
    page.wait_text("is UNSTABLE")  # the limit at a = 0 and one step of delay is -100
    page.set("box-rho", -0.2)
    page.wait_text("is STABLE")
    page.wait_line("lower limit", "y.length > 5")
    page.shot("frequency")
    assert page.complaints() == []


def test_the_sensor_ticks_groups_in_and_out(page: Page):
    page.open("?tab=sensor")
    page.wait_text("recorded without the gradient norm of each parameter")
    page.click("load-example")
    _, with_heads = page.wait_line("ticked parameters", "y.length > 50")
    options = page.run("return all.find(m => (m.css_classes || []).includes('groups')).labels;")
    heads = [i for i, name in enumerate(options) if name.endswith("_head")]
    assert len(heads) == 2
    kept = [i for i in range(len(options)) if i not in heads]
    page.run("all.find(m => (m.css_classes || []).includes('groups')).active = arguments[0];", kept)
    trace = load_bundled("fd001-parameters")
    last = float(trace.grad_norms[-1, 0] / trace.grad_norms[-1, 1])
    page.wait_line("ticked parameters", f"Math.abs(y[y.length - 1] / {last!r} - 1) < 1e-4")
    assert with_heads[-1] != pytest.approx(last, rel=1e-3)
    page.wait("return location.search.includes('without=')")
    page.shot("sensor")


def upload(page: Page, file: Path) -> None:
    """Give a file to the page's upload field."""
    from browser import _FIND

    field = page.wait(
        _FIND + "const host = find(document, 'upload'); if (!host || !host.shadowRoot) return null;"
        "return host.shadowRoot.querySelector('input[type=file]');"
    )
    field.send_keys(str(file))


def test_a_run_of_ones_own(page: Page, tmp_path: Path):
    page.open("?tab=trace&floor=0.02")
    page.wait_text("Drop a recorded run here")
    bad = tmp_path / "bad.csv"
    bad.write_text("grad_norm_a,grad_norm_b\n1,2\n3,-4\n")
    upload(page, bad)
    text = page.wait_text("Not loaded. bad.csv")
    assert "gradient norms are >= 0" in text
    page.shot("trace-refused")

    run = load_bundled("fd001-excited-adamw-w050-seed0")
    upload(page, write_parquet(run, tmp_path / "mine.parquet"))
    page.wait_text("Loaded mine.parquet: 3,000 steps")
    page.wait_text("Is the floor saturated?")
    page.click("identify")
    page.wait_text("negative feedback", seconds=60)
    page.click("recommend")
    page.wait_text("units first", seconds=60)
    page.shot("trace")
    page.click("use")
    page.wait("return location.search.includes('floor_mode=clamp_state')")

    for css, name in (("export-toml", "gaba.toml"), ("export-python", "gaba_settings.py")):
        (page.shots / name).unlink(missing_ok=True)
        page.click_link(css)
    toml = page.wait_file("gaba.toml")
    spec = GabaSpec.from_toml(toml)
    assert spec.beta == pytest.approx(page.value("box-beta"), abs=1e-5)
    assert tomllib.loads(toml.read_text())["gaba"]["n_tasks"] == 2
    names: dict[str, object] = {}
    exec(page.wait_file("gaba_settings.py").read_text(), names)
    assert names["spec"] == spec
    assert page.complaints() == []


def test_dark_and_on_a_phone(page: Page):
    page.open("?theme=dark")
    page.wait_line("rul, applied", "y.length > 100")
    assert (
        page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        == "rgb(20, 23, 28)"
    )
    assert (
        page.run("return all.find(m => m.type === 'LinearAxis').major_label_text_color")
        == "#dfe3e8"
    )
    page.shot("live-dark")
    page.set("choice-theme", "light")
    page.wait("return getComputedStyle(document.body).backgroundColor === 'rgb(255, 255, 255)'")
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        page.open("?ratio=500")
        page.wait_line("rul, applied", "y.length > 100")
        for key in TABS:
            page.click(f"tab-{key}")
            page.wait(
                "return location.search.includes(arguments[0]);", "" if key == "live" else key
            )
            page.wait("return Bokeh.documents[0].is_idle")
            page.shot(f"phone-{key}")
            overflow = page.browser.execute_script(
                "return document.documentElement.scrollWidth - window.innerWidth"
            )
            assert overflow <= 2, key
    finally:
        page.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
