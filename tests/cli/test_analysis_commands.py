"""``gabactl analyze`` as a user types it: the table, and what ``--plot`` draws."""

from __future__ import annotations

import json
import math

import pytest

from gabactl.cli import main


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def plot(capsys, kind: str, *arguments: str) -> tuple[int, str, str]:
    return run(capsys, "analyze", "--plot", kind, *arguments)


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not strict JSON")

    return json.loads(text, parse_constant=refuse)


PLANT = "log-ratio:rho=0.5,a=0.9,delay=1"

DOCUMENTED = {
    "time_constant_steps",
    "cutoff_rad_per_step",
    "noise_power_gain",
    "bounds",
    "saturation_ratio",
    "poles",
    "stable",
    "gain_margin_up",
    "gain_margin_up_db",
    "gain_margin_down",
    "gain_margin_down_db",
    "phase_margin_deg",
    "delay_margin_steps",
    "disk_margin",
    "ms",
    "mt",
    "witnesses",
}


def test_analyze_has_every_documented_key(capsys):
    code, out, _ = run(capsys, "analyze", "--plant", PLANT, "--json")
    report = strict(out)
    assert code == 0
    assert set(report) >= DOCUMENTED
    assert report["time_constant_steps"] == pytest.approx(99.499, abs=5e-4)
    assert report["bounds"] == pytest.approx([1 / 21, 20 / 21])
    assert report["stable"] is True
    assert report["gain_margin_up"] == pytest.approx(2.0)
    assert report["phase_margin_deg"] is None
    assert report["reasons"]["phase_margin_deg"]


def test_analyze_of_an_unstable_loop_says_so_and_exits_0(capsys):
    code, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-250")
    assert code == 0
    assert "unstable" in out
    assert "stable with the gain times  0 to 0.796" in out
    code, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-250", "--json")
    report = strict(out)
    assert code == 0
    assert report["stable"] is False
    assert report["gain_margin_up"] is None


def test_analyze_without_a_plant(capsys):
    code, out, _ = run(capsys, "analyze", "--beta", "0.9", "--floor", "0", "--json")
    report = strict(out)
    assert code == 0
    assert report["saturation_ratio"] is None
    assert "no floor" in report["saturation_ratio_reason"]
    assert report["stable"] is None


@pytest.mark.parametrize(
    ("plant", "verdict"),
    [
        ("log-ratio:rho=1", "neutral"),
        ("log-ratio:rho=1.1", "bistable"),
        ("bowls:curvatures=500/1,minimisers=0/1", "neutral"),
        ("log-ratio:rho=2,n_tasks=5", "stable"),
        ("log-ratio:rho=5,n_tasks=5", "unstable"),
    ],
)
def test_verdicts(capsys, plant, verdict):
    code, out, _ = run(capsys, "analyze", "--plant", plant, "--json")
    report = strict(out)
    assert code == 0
    assert report["verdict"] == verdict
    assert report["stable"] is (verdict == "stable")
    assert run(capsys, "analyze", "--plant", plant)[0] == 0


def test_certificates_name_their_model(capsys):
    code, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-3", "--certify", "--json")
    found = strict(out)["certificates"]
    assert code == 0
    assert all(one["certified"] for one in found)
    assert [one["model"].split()[0] for one in found] == [
        "linearised",
        "linearised",
        "exact",
        "linearised",
    ]
    _, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-3", "--certify")
    assert "verified exactly" in out


def test_an_unstable_loop_gets_its_oscillation(capsys):
    _, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-40,delay=5", "--json")
    (cycle,) = strict(out)["limit_cycles"]
    assert cycle["period_steps"] == pytest.approx(21.5, abs=0.1)


def test_spec_options_reach_the_loop(capsys):
    _, out, _ = run(capsys, "analyze", "--plant", "log-ratio:rho=-3", "--interval", "10", "--json")
    report = strict(out)
    assert report["interval"] == 10
    assert report["witnesses"]["gain_margin_up"]["frequency_rad_per_step"] == pytest.approx(
        math.pi / 10
    )


@pytest.mark.parametrize(
    ("kind", "ending", "magic"),
    [
        ("bode", "png", b"\x89PNG"),
        ("nyquist", "svg", b"<?xml"),
        ("nichols", "pdf", b"%PDF"),
        ("step", "png", b"\x89PNG"),
    ],
)
def test_pictures(capsys, tmp_path, kind, ending, magic):
    file = tmp_path / f"picture.{ending}"
    code, out, err = plot(capsys, kind, "--plant", "log-ratio:rho=-20,delay=5", "-o", str(file))
    assert (code, err) == (0, "")
    assert "stable" in out
    assert file.read_bytes().startswith(magic)


def test_rlocus(capsys, tmp_path):
    file = tmp_path / "locus.png"
    code, out, _ = plot(capsys, "rlocus", "--plant", "log-ratio:rho=-1", "-o", str(file))
    assert code == 0
    assert "-199 to 1" in out
    assert file.stat().st_size > 5000
    code, out, _ = run(
        capsys, "analyze", "--plot", "rlocus", "--plant", "log-ratio:rho=-30", "--over", "interval", "--from", "1", "--to", "60", "--json",
    )  # fmt: skip
    assert strict(out)["parameter"] == "interval"
    code, out, _ = plot(
        capsys, "rlocus", "--plant", "log-ratio:rho=-30", "--over", "beta", "--json"
    )
    # Derived: rho > -(1+b)/(1-b) gives beta > 29/31.
    assert strict(out)["stable_ranges"][0][0] == pytest.approx(29 / 31, abs=1e-6)


def test_without_a_display_it_says_how_to_get_the_picture(capsys, monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    code, out, err = plot(capsys, "nyquist", "--plant", "log-ratio:rho=-3")
    assert code == 0
    assert "encirclements" in out
    assert err == "gabactl: no display here: add -o FILE.png for the picture\n"


def test_step_info(capsys):
    _, out, _ = plot(capsys, "step", "--json")
    report = strict(out)
    assert (report["rise_time_steps"], report["settling_steps"]) == (219, 389)
    _, out, _ = plot(capsys, "step", "--ramp", "--json")
    assert strict(out)["final_contributions"] == pytest.approx(0.099, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["analyze", "--plant", "pid:k=1"], "choose from log-ratio"),
        (["analyze", "--beta", "1"], "beta = 1.0"),
        (["analyze", "--plant", "log-ratio:rho=1,n_tasks=3", "--tasks", "2"], "--tasks 3"),
        (["analyze", "--plot", "bode", "--plant", "log-ratio:rho=1", "--tasks", "3"], "two tasks"),
        (
            ["analyze", "--plot", "nyquist", "--plant", "bowls:curvatures=1/2,minimisers=0/1"],
            "no transfer function",
        ),
        (
            ["analyze", "--plot", "nichols", "--plant", "log-ratio:rho=1", "-o", "x.bmp"],
            ".png, .svg or .pdf",
        ),
        (["analyze", "--plot", "step", "--plant", "log-ratio:rho=1", "--steps", "0"], "steps = 0"),
        (
            ["analyze", "--plot", "rlocus", "--plant", "log-ratio:rho=1", "--over", "gamma"],
            "choose from beta, rho",
        ),
        (
            ["analyze", "--plot", "rlocus", "--plant", "log-ratio:rho=1", "--from", "1"],
            "both --from and --to",
        ),
        (["analyze", "--plot", "bode"], "add --plant"),
        (["analyze", "--plot", "picture.png"], "files go to -o"),
        (["analyze", "-o", "x.png"], "add --plot"),
        (["analyze", "--over", "beta"], "--over says something only with --plot rlocus"),
        (["analyze", "--plot", "step", "--to", "3"], "--to says something only with --plot rlocus"),
        (["analyze", "--plot", "rlocus", "--ramp"], "--ramp says something only with --plot step"),
        (["analyze", "--plot", "step", "--noise", "1"], "--noise says something only without"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(capsys, arguments, message):
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert err.count("\n") == 1


def test_a_loop_too_slow_to_sum_keeps_all_but_its_noise(capsys):
    """The analysis used to be refused as a whole."""
    slow = ("--beta", "0.999999999", "--plant", "log-ratio:rho=0.5")
    code, out, _ = run(capsys, "analyze", *slow, "--json")
    found = strict(out)
    assert code == 0
    assert found["loop_noise"] is None
    assert "takes 4.14e+10 readings to die out" in found["loop_noise_reason"]
    assert found["verdict"] == "stable"
    assert found["gain_margin_up"] == pytest.approx(2.0)
    code, out, _ = run(capsys, "analyze", *slow)
    assert code == 0
    assert "No noise figures: the slowest mode" in out
    # An unstable loop says why too; one that has figures has no reason; what is no noise is refused.
    out = run(capsys, "analyze", "--plant", "log-ratio:rho=1.1", "--json")[1]
    assert "unstable" in strict(out)["loop_noise_reason"]
    out = run(capsys, "analyze", "--plant", "log-ratio:rho=0.5", "--json")[1]
    assert "loop_noise_reason" not in strict(out)
    assert strict(out)["loop_noise"]["weights_std"] > 0
    assert run(capsys, "analyze", *slow, "--noise", "nan")[0] == 2
