"""Does benchmarks/house.py count what it says it counts?"""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "house.py"
RUN = "    a = f(1)\n    b = f(2)\n    c = f(3)\n    d = f(4)\n    e = f(5)\n    g = f(6)\n"
FILES = {
    "gabactl/__init__.py": '"""The door."""\n\nfrom gabactl.law.stages import smooth\n',
    "gabactl/law/__init__.py": "",
    "gabactl/law/stages.py": (
        '"""Two lines\n\nand a blank one."""\n\n__all__ = ["hidden", "smooth"]\n\n'
        "def smooth(ema, raw, pole):  # a comment\n    return pole * ema + (1 - pole) * raw\n\n"
        "def hidden(mode):\n    return mode == 'affine'\n"
    ),
    "gabactl/base/files.py": (
        f"__all__ = []\ndef first(f):\n{RUN}\ndef second():\n    from gabactl.law import stages\n"
    ),
    "gabactl/base/_more.py": (
        f"__all__ = ['third']\nfrom gabactl.base import files\ndef third(f):\n{RUN}"
        "OPTIONS = {'project': files.project}\n"
    ),
    "gabactl/odd/one.py": "def total(x, floor):\n    return x, max(x, floor)\n",
    "README.md": "Call `gabactl.smooth`; hidden is no code.\n",
}


@pytest.fixture(scope="module")
def measure():
    return runpy.run_path(str(SCRIPT))["measure"]


def test_a_small_package_is_counted_by_the_rules(measure):
    found = measure(FILES)
    assert found["files"] == 6
    assert found["docstring lines"] == 4
    assert found["code lines"] == 1 + 0 + 5 + 10 + 10 + 2
    assert found["public definitions"] == 2
    assert found["public names the docs name"] == ["smooth"]
    assert found["texts of the law"] == [
        "gabactl/law/stages.py: {'low-pass': [8], 'raw': [], 'floor': []}"
    ]
    assert found["files that name a floor mode"] == ["gabactl/law/stages.py"]
    assert found["files at the top"] == ["gabactl/__init__.py"]
    assert found["rooms at the top"] == ["base", "law", "odd"]
    assert found["rooms outside the order"] == ["odd"]
    assert found["imports that go up"] == ["gabactl.base.files -> gabactl.law.stages"]
    assert found["circles of modules"] == found["circles of rooms"] == []
    assert found["repeated runs"] == ["gabactl/base/files.py:3 as gabactl/base/_more.py:4, 6 lines"]
    assert found["repeated lines"] == 6


@pytest.mark.parametrize(
    "text",
    [
        "def f(ema, raw, pole, keep):\n    return ema * pole + keep * raw\n",
        "def f(ema, raw, beta):\n    return beta**3 * ema + raw\n",
        "def f(ema, raw, pole):\n    return fma(pole, ema, raw)\n",
        "def f(ema, raw, pole):\n    return pole.fma(ema, raw)\n",
        "def f(raw, pole):\n    return lfilter([1 - pole], [1, -pole], raw)\n",
        "def f(g, s, e, floor):\n    return (s - g) / (2 * s), maximum(e, floor)\n",
        "def f(g, s, e, floor):\n    return (s - g) / s, floor if e < floor else e\n",
    ],
)
def test_a_text_of_the_law_is_seen_however_it_is_written(measure, text):
    assert len(measure({"gabactl/a/b.py": text})["texts of the law"]) == 1


@pytest.mark.parametrize(
    "text",
    [
        "def f(low, high):\n    return (high - low) / high\n",
        "def f(e, floor):\n    return max(e, floor), (1 - e) / (1 + e)\n",
        "def f(pole, gain):\n    return gain * pole, 1 - pole\n",
    ],
)
def test_other_arithmetic_is_no_text_of_the_law(measure, text):
    assert measure({"gabactl/a/b.py": text})["texts of the law"] == []


def test_circles_are_found_through_functions_and_over_several_modules(measure):
    found = measure(
        {
            "gabactl/law/a.py": "from gabactl.base.b import x\n",
            "gabactl/base/b.py": "def f():\n    import gabactl.base.c\n",
            "gabactl/base/c.py": "from gabactl.law import a\n",
        }
    )
    assert found["circles of modules"] == ["gabactl.base.b <-> gabactl.base.c <-> gabactl.law.a"]
    assert found["circles of rooms"] == ["base <-> law"]


@pytest.mark.skipif(not (SCRIPT.parents[1] / ".git").exists(), reason="no checkout")
def test_the_script_prints_a_table_of_this_tree():
    done = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=True)
    rows = dict(line.rsplit(None, 1) for line in done.stdout.splitlines())
    assert int(rows["code lines"].replace(",", "")) > 10_000
