"""How soon the dashboard answers a slider, with a run of 5,000 steps: bound 100 ms.

    python benchmarks/dashboard.py [--browser] [--json]

1. The update function of each tab, from the changed setting to the data of the figures: CPU time
   of the process, least of several, so that a busy machine does not count.
2. With ``--browser``, the round trip in headless Chromium: from the slider's new value to the new
   curve on the screen (two animation frames after the data arrived), wall time; median and least.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from gabactl.app import dashboard, frequency
from gabactl.app.state import TABS
from gabactl.traces import Trace, write_parquet

STEPS = 5000
BOUND_MS = 100.0

#: What is moved on each tab, to and fro.
MOVES: dict[str, tuple[dict[str, Any], ...]] = {
    "live": ({"beta": 0.98}, {"beta": 0.99}, {"floor": 0.01}, {"floor": 0.05}, {"step": 400}),
    "diagram": ({"ratio": 500.0}, {"ratio": 10.0}),
    "crossing": ({"ratio": 500.0}, {"ratio": 10.0}, {"floor": 0.02}),
    "gradnorm": ({"alpha": 1.0}, {"alpha": 2.0}, {"progress_1": 0.3}, {"beta": 0.98}),
    "sensor": ({"without": ("rul_head",)}, {"without": ()}),
    "frequency": ({"rho": -0.5}, {"rho": 0.5}, {"beta": 0.98}, {"lag": 3.0}, {"lag": 12.0}),
    "trace": ({"beta": 0.98}, {"floor": 0.01}),
}


def run_of(steps: int) -> Trace:
    """A run like the recorded ones: ratio about 600, noise 0.5 per step; per-parameter norms too."""
    rng = np.random.default_rng(0)
    norms = np.exp(0.35 * rng.standard_normal((steps, 2))) * [700.0, 1.2]
    names = [f"{group}.{i}" for group in ("rul_head", "conv", "lstm") for i in range(8)]
    parts = {
        task: norms[:, i : i + 1] * rng.dirichlet(np.ones(24), steps) ** 0.5
        for i, task in enumerate(("rul", "health"))
    }
    losses = np.exp(0.1 * rng.standard_normal((steps, 2))) * [400.0, 0.5]
    return Trace.from_arrays(
        norms, tasks=("rul", "health"), losses=losses, metadata={"param_names": names}
    ).replace(param_norms=parts)


def updates(trace: Trace) -> Iterator[dict[str, Any]]:
    """CPU milliseconds of each move, on each tab."""
    page = dashboard(trace)
    for tab, moves in MOVES.items():
        page.session.change(tab=tab)
        # Sensor settings apply to this run alone; everything else stays where it is put.
        least = {str(move): float("inf") for move in moves}
        for _ in range(5):
            for move in moves:
                # From somewhere else, so that nothing is kept.
                page.session.change(warmup=99 if page.session.view.warmup == 100 else 100)
                frequency.stable_rho.cache_clear()
                frequency.locus_points.cache_clear()
                start = time.process_time()
                page.session.change(**move)
                spent = 1e3 * (time.process_time() - start)
                least[str(move)] = min(least[str(move)], spent)
        for move, milliseconds in least.items():
            yield {"tab": tab, "move": move, "cpu_ms": round(milliseconds, 1)}


_ROUND_TRIP = """
const [css, value, name, done] = arguments;
const all = [...Bokeh.documents[0]._all_models.values()].reverse();
const widget = all.find(m => (m.css_classes || []).includes(css));
// What answers: the points of a line, or the HTML of the pane with this class.
const line = all.find(m => m.type === 'GlyphRenderer' && m.name === name);
const change = line ? line.data_source.properties.data.change
  : all.find(m => (m.css_classes || []).includes(name)).properties.text.change;
const start = performance.now();
const listen = () => {
  change.disconnect(listen);
  requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
};
change.connect(listen);
if ('active' in widget) widget.active = value; else widget.value = value;
"""

#: Tab, widget, its values to and fro, line or pane that answers.
TRIPS: tuple[tuple[str, str, tuple[Any, ...], str], ...] = (
    ("live", "slider-floor", (-2.0, -1.0), "rul, applied"),
    ("live", "slider-beta", (1.5, 2.0), "rul, applied"),
    ("diagram", "slider-ratio", (1.0, 2.5), "diagram"),
    ("crossing", "slider-ratio", (1.0, 2.5), "crossing: raw weight"),
    ("gradnorm", "slider-progress_1", (0.3, 0.9), "GradNorm"),
    ("sensor", "groups", ([1, 2], [0, 1, 2]), "ticked parameters"),
    ("frequency", "slider-rho", (-0.5, -0.2), "loop L"),
    ("frequency", "slider-lag", (5.0, 12.0), "loop L"),
    ("trace", "slider-beta", (1.5, 2.0), "rul: weight"),
)


def round_trips(trace: Trace, repeats: int) -> Iterator[dict[str, Any]]:
    """Wall milliseconds from slider to screen."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
    from browser import Page, end_server, need_browser, start_server

    with tempfile.TemporaryDirectory() as folder:
        file = write_parquet(trace, Path(folder) / "run.parquet")
        process, address = start_server(str(file))
        browser = None
        try:
            browser = need_browser()
            page = Page(browser, address, Path(folder))
            for tab, slider, positions, line in TRIPS:
                page.open(f"?tab={tab}&ratio=20")
                if line != "diagram":
                    page.wait_line(line, "y.length > 0")
                time.sleep(1.0)
                times = []
                for _, position in zip(range(repeats), cycle(positions), strict=False):
                    times.append(browser.execute_async_script(_ROUND_TRIP, slider, position, line))
                    time.sleep(0.4)
                yield {
                    "tab": tab,
                    "move": slider,
                    "median_ms": round(statistics.median(times), 1),
                    "least_ms": round(min(times), 1),
                }
        finally:
            if browser is not None:
                browser.quit()
            end_server(process)


def table(rows: Iterator[dict[str, Any]], show: Callable[[str], None]) -> list[dict[str, Any]]:
    """Print rows as they come."""
    kept = []
    for row in rows:
        kept.append(row)
        show("  ".join(f"{key} {value}" for key, value in row.items()))
    return kept


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browser", action="store_true", help="the round trips too")
    parser.add_argument("--repeats", type=int, default=20, help="round trips per slider")
    parser.add_argument("--json", action="store_true", help="machine output")
    options = parser.parse_args()
    assert set(MOVES) == set(TABS)
    trace = run_of(STEPS)
    show = (lambda _: None) if options.json else print
    show(f"{STEPS} steps, bound {BOUND_MS:g} ms, load average {os.getloadavg()[0]:.1f}")
    result = {"steps": STEPS, "bound_ms": BOUND_MS, "load_average": os.getloadavg()[0]}
    result["updates"] = table(updates(trace), show)
    if options.browser:
        result["round_trips"] = table(round_trips(trace, options.repeats), show)
    if options.json:
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
