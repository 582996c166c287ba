"""Your trace: load a run, judge its floor, identify the plant, get settings, take them away."""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import panel as pn

from gabactl.app.figures import COLOURS
from gabactl.app.state import SPEC_FIELDS
from gabactl.app.tab import Tab, button
from gabactl.app.text import pane, paragraph, table
from gabactl.base.errors import InputError
from gabactl.base.results import Result
from gabactl.law.spec import GabaSpec
from gabactl.runs.saturation import saturation
from gabactl.runs.units import unit_advice
from gabactl.traces import Trace, read_trace

if TYPE_CHECKING:
    from gabactl.identification import Identification


#: Largest file that is taken.
MAX_UPLOAD_MB = 32

#: Simulated data sets behind the identification's critical values, as `gabactl tune` takes.
_DRAWS = 399

#: Endings that mean something to the readers; everything else is told apart by content.
_ENDINGS = (".parquet", ".arrows", ".csv", ".json", ".jsonl")


def read_upload(name: str, content: bytes) -> Trace:
    """Check and read an uploaded file, which is never run and not kept.

    Parameters
    ----------
    name : str
        As the browser calls it; used in messages, and for its ending.
    content : bytes
        The file.

    Raises
    ------
    InputError
        Too large, or no trace.

    Examples
    --------
    >>> read_upload("../run.csv", b"grad_norm_a,grad_norm_b\\n250,0.5\\n").source
    'run.csv'
    """
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name.replace("\\", "/").rsplit("/", 1)[-1]).strip(". ")
    shown = plain[-80:] or "upload"
    if len(content) > MAX_UPLOAD_MB << 20:
        raise InputError(
            f"{shown}: {len(content) / 2**20:.0f} MB are more than the {MAX_UPLOAD_MB} MB taken "
            "here: give the file to `gabactl dashboard` on the command line instead"
        )
    with tempfile.TemporaryDirectory(prefix="gabactl-") as folder:
        file = Path(folder) / shown
        file.write_bytes(content)
        try:
            return read_trace(file).replace(source=shown)
        except InputError as refused:
            # Where it lay for a moment is nobody's business.
            raise InputError(str(refused).replace(str(file), shown)) from None


def python_source(spec: GabaSpec) -> str:
    """A Python module with these settings.

    Parameters
    ----------
    spec : GabaSpec
        What to write.

    Returns
    -------
    str
        Run, it defines ``spec`` and a function that makes the loss.

    Examples
    --------
    >>> names = {}
    >>> exec(python_source(GabaSpec(beta=0.9)), names)
    >>> names["spec"] == GabaSpec(beta=0.9)
    True
    """
    settings = "\n".join(f"    {name}={value!r}," for name, value in spec.to_dict().items())
    return (
        '"""Settings of a GABA controller, as chosen in the gabactl dashboard."""\n'
        "\n"
        "from gabactl import GabaSpec\n"
        "\n"
        "spec = GabaSpec(\n"
        f"{settings}\n"
        ")\n"
        "\n"
        "\n"
        "def make_loss():\n"
        '    """The loss with these settings (needs torch)."""\n'
        "    from gabactl.nn import GABALoss\n"
        "\n"
        "    return GABALoss.from_spec(spec)\n"
    )


class TraceTab(Tab):
    """A run of one's own."""

    #: The answer to the upload is in here.
    lasting = True

    def build(self) -> tuple[Any, ...]:
        """The place for a file, what is found in it, and what can be taken away."""
        self.drop = pn.widgets.FileDropper(
            max_file_size=f"{MAX_UPLOAD_MB}MB",
            multiple=False,
            previews=[],
            height=90,
            sizing_mode="stretch_width",
            css_classes=["upload"],
        )
        self.drop.param.watch(self._dropped, "value")
        self.message = pane("", css_classes=["upload-message"])
        self.replay = self.board(
            "Replay under the settings of this page",
            "step",
            "weight",
            height=260,
            y_range=(-0.02, 1.02),
        )
        self._lines: list[Any] = []
        self.findings = pane()
        self.identify_button = button("Identify the plant", ["identify"], self._identify)
        self.recommend_button = button("Recommend settings", ["recommend"], self._recommend)
        self.use_button = button("Use the recommended settings", ["use"], self._use, visible=False)
        self.identified = pane("", css_classes=["identified"])
        self.recommended = pane("", css_classes=["recommended"])
        self._found: Identification | None = None
        self._advice: GabaSpec | None = None
        self._of: Trace | None = None
        self.downloads = [
            pn.widgets.FileDownload(
                callback=lambda write=write: io.BytesIO(write(self.session.spec).encode()),
                filename=name,
                label=label,
                button_type="default",
                css_classes=[css],
                embed=False,
                auto=True,
            )
            for name, label, css, write in (
                ("gaba.toml", "Settings as TOML", "export-toml", GabaSpec.to_toml),
                ("gaba_settings.py", "Settings as Python", "export-python", python_source),
            )
        ]
        return (
            pane(
                paragraph(
                    "Drop a recorded run here: Parquet, Arrow stream or CSV of gabactl, a "
                    "TensorBoard event file, or a history exported from Weights & Biases; at most "
                    f"{MAX_UPLOAD_MB} MB. It stays on this machine and is not kept."
                )
            ),
            self.drop,
            self.message,
            self.replay.view,
            self.findings,
            pn.FlexBox(self.identify_button, self.recommend_button, self.use_button),
            self.identified,
            self.recommended,
            pane(paragraph("Take the settings of this page away:")),
            pn.FlexBox(*self.downloads),
        )

    def update(self) -> None:
        """Replay the run and judge it under the present settings."""
        session = self.session
        trace = session.trace
        if trace is not self._of:
            if self._of is None or self._of.tasks != trace.tasks:
                self._draw_lines(trace)
            self._of, self._found, self._advice = trace, None, None
            self.identified.object = self.recommended.object = ""
            self.use_button.visible = False
        run = session.replayed
        for i, (average, applied) in enumerate(self._lines):
            average.set(trace.step, run.ema[:, i])
            applied.set(trace.step, run.weights[:, i])
        self.replay.frame("x", int(trace.step[0]), int(trace.step[-1]))
        excited = trace.excitation is not None and session.n_tasks == 2
        self.identify_button.disabled = not excited
        about = [
            (
                "run",
                trace.source + (" (not closed: killed, or still going)" if trace.truncated else ""),
            ),
            ("tasks", ", ".join(trace.tasks[:12])),
            ("steps", f"{len(trace):,}, from {trace.step[0]:,} to {trace.step[-1]:,}"),
            ("readings", f"{int(trace.measured.sum()):,}"),
            ("losses", "no" if trace.losses is None else "yes"),
            ("excitation", "yes" if excited else "no: identification needs one"),
        ]
        self.findings.object = (
            table(about, caption="The run")
            + _or_why(lambda: saturation(session.run))
            + _or_why(lambda: unit_advice(session.run))
        )

    def _draw_lines(self, trace: Trace) -> None:
        line = self.replay.line
        self.replay.clear()
        self._lines = [
            (line(f"{name}: average", colour, "dotted"), line(f"{name}: weight", colour))
            for name, colour in zip(trace.tasks, COLOURS, strict=False)
        ]

    # -- upload ----------------------------------------------------------------------------------

    def _dropped(self, event: Any) -> None:
        if not event.new:
            return
        name, content = next(reversed(event.new.items()))
        self.load(name, content.encode() if isinstance(content, str) else content)

    def load(self, name: str, content: bytes) -> bool:
        """Look at an uploaded file.

        Parameters
        ----------
        name : str
            As the browser calls it.
        content : bytes
            The file.

        Returns
        -------
        bool
            False where it was refused: the tab says why.
        """
        try:
            trace = read_upload(name, content)
            why = "" if self.session.take(trace) else self.session.message
        except InputError as refused:
            why = str(refused)
        self.message.object = (
            paragraph(f"Not loaded. {why}", "bad")
            if why
            else paragraph(f"Loaded {trace.source}: {len(trace):,} steps.")
        )
        return not why

    # -- what takes seconds ----------------------------------------------------------------------

    async def _identify(self, _: Any) -> None:
        await self._busy(self.identify_button, self.identified, self.identify)

    async def _recommend(self, _: Any) -> None:
        await self._busy(self.recommend_button, self.recommended, self.recommend)
        self.use_button.visible = self._advice is not None

    async def _busy(self, button: Any, place: Any, work: Callable[[], Result]) -> None:
        button.loading, place.object = True, paragraph("Computing ...")
        trace = self.session.trace
        done = await asyncio.to_thread(_or_why, work)
        # Another run may have been loaded meanwhile.
        place.object = done if trace is self.session.trace else ""
        button.loading = False

    def identify(self) -> Result:
        """Identify the plant behind the run."""
        from gabactl.identification import identify

        self._found = identify(self.session.run, spec=self.session.spec, draws=_DRAWS)
        return self._found

    def recommend(self) -> Result:
        """Recommend settings for the run; its plant counts if it was identified."""
        from gabactl.synthesis import tune, workload_of

        run = self.session.run
        source = f"{run.source}, {'identified' if self._found else 'plant not identified'}"
        advice = tune(workload_of(run, identified=self._found, source=source))
        self._advice = advice.spec
        return advice

    def _use(self, _: Any) -> None:
        if self._advice is not None:
            self.request(**{name: getattr(self._advice, name) for name in SPEC_FIELDS})


def _or_why(judge: Callable[[], Result]) -> str:
    """A result as a table; or, where there is none, why."""
    try:
        result = judge()
    except InputError as refused:
        return paragraph(str(refused), "bad")
    return table(result.rows(), caption=result.title)
