"""What answers to the weights: the plants a loop can be closed around.

A plant is a frozen description. ``plant.start(seed)`` gives a running copy with two methods, called
in turn at every step: ``measure(log_disturbance)`` returns the gradient norms, and
``apply(weights)`` tells the plant what the controller did with them. The weights of step t change
the norms of step t + 1 at the earliest.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gabactl.errors import InputError

__all__ = [
    "CallablePlant",
    "LogRatio",
    "LtiPlant",
    "Plant",
    "PlantState",
    "QuadraticBowls",
    "Replay",
    "parse_plant",
    "split_disturbance",
]

Array = NDArray[np.float64]

# A weight of exactly 0 has no logarithm; the smallest normal float stands in for it.
_TINY = float(np.finfo(np.float64).tiny)


class PlantState(Protocol):
    """A running plant."""

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        """Gradient norms of this step, shape (K,).

        Parameters
        ----------
        log_disturbance : float or array, shape (K,), optional
            Added to the natural logarithm of the norms. With two tasks a single number is a
            disturbance of the log ratio, split evenly.
        """

    def apply(self, weights: ArrayLike) -> None:
        """Take the weights of this step, shape (K,), and advance by one step."""


@runtime_checkable
class Plant(Protocol):
    """Anything with a number of tasks that can be started."""

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""

    def start(self, seed: int = 0) -> PlantState:
        """A fresh running copy; the seed matters only for plants with noise."""


def split_disturbance(log_disturbance: ArrayLike | None, n_tasks: int) -> Array:
    """A log disturbance per task, shape (K,), from what :meth:`PlantState.measure` accepts.

    Examples
    --------
    >>> split_disturbance(2.0, 2).tolist()
    [1.0, -1.0]
    """
    if log_disturbance is None:
        return np.zeros(n_tasks)
    d = np.asarray(log_disturbance, dtype=np.float64)
    if d.ndim == 0 and n_tasks == 2:
        return np.array([0.5, -0.5]) * d
    if d.shape != (n_tasks,):
        raise InputError(
            f"log_disturbance of shape {d.shape} for n_tasks = {n_tasks}: "
            "give one number per task (or, for two tasks, one number for the log ratio)"
        )
    return d


def _logits(weights: ArrayLike, n_tasks: int) -> Array:
    """log w_i - mean_j log w_j."""
    w = np.asarray(weights, dtype=np.float64)
    if w.shape != (n_tasks,):
        raise InputError(f"weights of shape {w.shape} for n_tasks = {n_tasks}: give one per task")
    logs = np.log(np.maximum(w, _TINY))
    return np.asarray(logs - logs.mean(), dtype=np.float64)


def _check_real(name: str, value: Any, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} = {value!r} is not a finite number: {remedy}")


def _check_int(name: str, value: Any, least: int, remedy: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise InputError(f"{name} = {value!r} is not a whole number >= {least}: {remedy}")


@dataclass(frozen=True)
class LogRatio:
    """First-order answer of the log norms to the log weights.

    log g_i = d_i - rho lag(log w_i - mean_j log w_j), which for two tasks is y = P(z) u + d with
    y = log(g_1/g_2), u = log(w_1/w_2) and P(z) = -rho (1-a) z^-(1+delay)/(1 - a z^-1).

    Parameters
    ----------
    rho : float
        DC feedback. Positive: weight trains its task's gradient down, which with GABA is positive
        feedback (rho = 1 is neutral, above 1 unstable). Negative: negative feedback; -0.04 to -0.3
        is what training of a small network on C-MAPSS showed.
    a : float in (-1, 1)
        Pole of the lag, per step. 0 answers at once.
    delay : int, at least 0
        Extra steps beyond the one built in.
    n_tasks : int, at least 2
        Number of tasks K.

    Examples
    --------
    >>> plant = LogRatio(rho=0.5)
    >>> state = plant.start()
    >>> state.apply([0.2, 0.8])
    >>> (state.measure()[0] / state.measure()[1]).round(12)  # (0.2/0.8)^-0.5
    np.float64(2.0)
    """

    rho: float
    a: float = 0.0
    delay: int = 0
    n_tasks: int = 2

    def __post_init__(self) -> None:
        _check_real("rho", self.rho, "give the DC feedback, such as 0.5 or -0.1")
        _check_real("a", self.a, "give the pole of the lag, such as 0.9")
        if not -1.0 < self.a < 1.0:
            raise InputError(f"a = {self.a!r} is not in (-1, 1): choose a stable lag, such as 0.9")
        _check_int("delay", self.delay, 0, "give extra steps, such as 1")
        _check_int("n_tasks", self.n_tasks, 2, "balancing needs at least two losses")

    def start(self, seed: int = 0) -> PlantState:
        """A running copy that has seen uniform weights so far.

        Examples
        --------
        >>> LogRatio(rho=0.5).start().measure(2.0).round(4).tolist()
        [2.7183, 0.3679]
        """
        return _LogRatioState(self)

    def to_control(self) -> Any:
        """P(z) as a ``control.TransferFunction`` with dt = 1 (per task, for K > 2).

        Examples
        --------
        >>> float(LogRatio(rho=0.5, a=0.9, delay=2).to_control().dcgain())
        -0.5...
        """
        import control

        gain = -self.rho * (1.0 - self.a)
        return control.TransferFunction([gain], [1.0, -self.a] + [0.0] * self.delay, 1)


class _LogRatioState:
    def __init__(self, plant: LogRatio) -> None:
        self._plant = plant
        self._lag = np.zeros(plant.n_tasks)
        self._queue: deque[Array] = deque(np.zeros(plant.n_tasks) for _ in range(plant.delay))

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        d = split_disturbance(log_disturbance, self._plant.n_tasks)
        return np.asarray(np.exp(d - self._plant.rho * self._lag), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        a = self._plant.a
        self._queue.append(_logits(weights, self._plant.n_tasks))
        self._lag = a * self._lag + (1.0 - a) * self._queue.popleft()


@dataclass(frozen=True)
class QuadraticBowls:
    """Gradient descent on shared parameters under K quadratic losses.

    L_i = 1/2 sum_j h_ij (theta_j - c_ij)^2, theta <- theta - step_size sum_i w_i (grad L_i + noise).
    The norm measured is that of the noisy gradient, as in training, so that its square is
    |grad L_i|^2 + noise_i^2 in the mean. A log disturbance scales a loss, hence both its norm and
    its pull.

    Without noise, two bowls end where w_1 grad L_1 + w_2 grad L_2 = 0, which holds w_1 g_1 = w_2 g_2
    for every w: the loop is then exactly neutral.

    Parameters
    ----------
    curvatures : sequence of K floats > 0, or of K sequences of n
        h_i (or its diagonal).
    minimisers : sequence of K floats, or of K sequences of n
        c_i; all of the same length n.
    noise : float or sequence of K floats, at least 0
        Root mean square norm of each task's gradient noise.
    step_size : float > 0
        Learning rate; stable below 2/max h.
    start_at : sequence of n floats, optional
        First theta; default the mean of the minimisers.

    Examples
    --------
    >>> state = QuadraticBowls(curvatures=(500, 1), minimisers=(0, 1), step_size=1e-3).start()
    >>> state.measure().tolist()
    [250.0, 0.5]
    """

    curvatures: Sequence[Any]
    minimisers: Sequence[Any]
    noise: Any = 0.0
    step_size: float = 1e-3
    start_at: Sequence[float] | None = None
    _arrays: tuple[Array, Array, Array, Array] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        centres = _matrix("minimisers", self.minimisers)
        k, n = centres.shape
        if k < 2:
            raise InputError(f"minimisers of {k} task(s): balancing needs at least two losses")
        h = _matrix("curvatures", self.curvatures)
        if h.shape not in {(k, 1), (k, n)} or not (h > 0).all():
            raise InputError(
                f"curvatures of shape {h.shape} for minimisers of shape {(k, n)}: "
                "give one positive number per task, or one per task and parameter"
            )
        noise = np.asarray(self.noise, dtype=np.float64)
        if noise.shape not in {(), (k,)} or not (np.isfinite(noise) & (noise >= 0)).all():
            raise InputError(f"noise = {self.noise!r}: give one number >= 0, or one per task")
        _check_real("step_size", self.step_size, "give a learning rate, such as 1e-3")
        if self.step_size <= 0:
            raise InputError(f"step_size = {self.step_size!r} is not positive: such as 1e-3")
        first = centres.mean(axis=0)
        if self.start_at is not None:
            first = np.asarray(self.start_at, dtype=np.float64)
            if first.shape != (n,) or not np.isfinite(first).all():
                raise InputError(f"start_at = {self.start_at!r}: give {n} finite number(s)")
        arrays = (np.broadcast_to(h, (k, n)), centres, np.broadcast_to(noise, (k,)), first)
        object.__setattr__(self, "_arrays", arrays)

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return len(self._arrays[1])

    def start(self, seed: int = 0) -> PlantState:
        """A running copy; the seed draws the gradient noise.

        Examples
        --------
        >>> plant = QuadraticBowls((1, 1), (0, 1), noise=0.1)
        >>> bool((plant.start(1).measure() == plant.start(1).measure()).all())
        True
        """
        return _BowlsState(self, seed)


class _BowlsState:
    def __init__(self, plant: QuadraticBowls, seed: int) -> None:
        self._curvatures, self._centres, self._noise, self.theta = plant._arrays
        self._step_size = plant.step_size
        self._random = np.random.default_rng(seed)
        self._gradients: Array | None = None

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        k, n = self._centres.shape
        gradients = self._curvatures * (self.theta - self._centres)
        if self._noise.any():
            draws = self._random.standard_normal((k, n)) / math.sqrt(n)
            gradients = gradients + self._noise[:, None] * draws
        gradients = gradients * np.exp(split_disturbance(log_disturbance, k))[:, None]
        self._gradients = gradients
        return np.asarray(np.linalg.norm(gradients, axis=1), dtype=np.float64)

    @property
    def gradients(self) -> Array:
        """Task gradients of this step, shape (K, n), for balancers that act on directions."""
        if self._gradients is None:
            self.measure()
        assert self._gradients is not None
        return self._gradients

    @property
    def losses(self) -> Array:
        """Task losses at the present parameters, shape (K,), without the log disturbance."""
        away = self.theta - self._centres
        return np.asarray(0.5 * (self._curvatures * away**2).sum(axis=1), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        if self._gradients is None:
            self.measure()
        assert self._gradients is not None
        w = np.asarray(weights, dtype=np.float64)
        self.theta = self.theta - self._step_size * (w @ self._gradients)
        self._gradients = None


def _matrix(name: str, rows: Sequence[Any]) -> Array:
    try:
        values = np.array([np.atleast_1d(np.asarray(row, dtype=np.float64)) for row in rows])
    except (TypeError, ValueError):
        values = np.empty(0)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError(
            f"{name} = {rows!r}: give one finite number (or equally long list of them) per task"
        )
    return values


@dataclass(frozen=True, eq=False)
class Replay:
    """Recorded gradient norms played back; they do not answer to the weights.

    Parameters
    ----------
    grad_norms : array, shape (steps, K)
        One row per step; NaN where nothing was recorded.

    Examples
    --------
    >>> state = Replay([[3.0, 1.0], [5.0, 1.0]]).start()
    >>> state.measure().tolist(), state.apply([0.5, 0.5]), state.measure().tolist()
    ([3.0, 1.0], None, [5.0, 1.0])
    """

    grad_norms: Any

    def __post_init__(self) -> None:
        try:
            norms = np.array(self.grad_norms, dtype=np.float64)
        except (TypeError, ValueError):
            norms = np.empty(0)
        if norms.ndim != 2 or norms.shape[0] < 1 or norms.shape[1] < 2:
            raise InputError(
                f"grad_norms of shape {norms.shape}: give an array (steps, tasks) with two tasks or more"
            )
        if (norms < 0).any():
            raise InputError("grad_norms has a negative norm: norms are >= 0")
        norms.setflags(write=False)
        object.__setattr__(self, "grad_norms", norms)

    @property
    def n_tasks(self) -> int:
        """Number of tasks K."""
        return int(self.grad_norms.shape[1])

    @property
    def n_steps(self) -> int:
        """Number of recorded steps."""
        return int(self.grad_norms.shape[0])

    @classmethod
    def from_trace(cls, path: Any) -> Replay:
        """The gradient norms of a trace file, any format that ``read_trace`` takes."""
        from gabactl.traces import read_trace

        return cls(read_trace(path).grad_norms)

    def start(self, seed: int = 0) -> PlantState:
        """A running copy, at the first row.

        Examples
        --------
        >>> Replay([[3.0, 1.0]]).start().measure().tolist()
        [3.0, 1.0]
        """
        return _ReplayState(self)


class _ReplayState:
    def __init__(self, plant: Replay) -> None:
        self._norms = plant.grad_norms
        self._row = 0

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        if self._row >= len(self._norms):
            raise InputError(
                f"the replay has {len(self._norms)} steps and step {self._row + 1} was asked for: "
                "simulate fewer steps"
            )
        d = split_disturbance(log_disturbance, self._norms.shape[1])
        return np.asarray(self._norms[self._row] * np.exp(d), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        self._row += 1


@dataclass(frozen=True, eq=False)
class LtiPlant:
    """A python-control discrete system from u = log(w_1/w_2) to y = log(g_1/g_2).

    Parameters
    ----------
    system : control.TransferFunction or control.StateSpace
        One input, one output, discrete with dt = 1 (or True), strictly proper: the weights of a
        step cannot change the norms they were computed from.

    Examples
    --------
    >>> import control
    >>> state = LtiPlant(control.TransferFunction([-0.5], [1, 0], 1)).start()
    >>> state.apply([0.2, 0.8])
    >>> (state.measure()[0] / state.measure()[1]).round(12)  # (0.2/0.8)^-0.5
    np.float64(2.0)
    """

    system: Any
    n_tasks: int = field(default=2, init=False)
    _matrices: tuple[Array, Array, Array] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import control

        system = self.system
        if not isinstance(system, (control.TransferFunction, control.StateSpace)):
            raise InputError(
                f"plant of type {type(system).__name__}: give a control.TransferFunction or "
                "control.StateSpace"
            )
        if system.ninputs != 1 or system.noutputs != 1:
            raise InputError(
                f"plant with {system.ninputs} inputs and {system.noutputs} outputs: give one of "
                "each, from log(w_1/w_2) to log(g_1/g_2)"
            )
        if system.dt is not True and system.dt != 1:
            raise InputError(
                f"plant with dt = {system.dt!r}: time is counted in optimisation steps; give a "
                "discrete system with dt = 1"
            )
        a, b, c, d = _realisation(system)
        if np.any(d != 0):
            raise InputError(
                f"plant with direct feed-through {float(d.item()):g}: the weights of a step cannot "
                "change the norms they came from; multiply by 1/z"
            )
        object.__setattr__(self, "_matrices", (a, b[:, 0], c[0]))

    def start(self, seed: int = 0) -> PlantState:
        """A running copy at rest."""
        return _LtiState(*self._matrices)

    def to_control(self) -> Any:
        """The system itself."""
        return self.system


def _realisation(system: Any) -> tuple[Array, Array, Array, Array]:
    """State-space matrices; a transfer function in controller form, without python-control's slycot."""
    if hasattr(system, "A"):
        return tuple(np.asarray(getattr(system, m), dtype=np.float64) for m in "ABCD")  # type: ignore[return-value]
    from scipy import signal

    numerator = np.asarray(system.num[0][0], dtype=np.float64)
    denominator = np.asarray(system.den[0][0], dtype=np.float64)
    if np.trim_zeros(numerator, "f").size > np.trim_zeros(denominator, "f").size:
        raise InputError("plant with more zeros than poles: it would answer before it is asked")
    a, b, c, d = signal.tf2ss(numerator, denominator)
    return a, b, c, d


class _LtiState:
    def __init__(self, a: Array, b: Array, c: Array) -> None:
        self._a, self._b, self._c = a, b, c
        self._x = np.zeros(len(b))

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        half = 0.5 * float(self._c @ self._x) if self._x.size else 0.0
        d = split_disturbance(log_disturbance, 2)
        return np.asarray(np.exp(d + np.array([half, -half])), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        u = 2.0 * _logits(weights, 2)[0]
        self._x = self._a @ self._x + self._b * u


@dataclass(frozen=True, eq=False)
class CallablePlant:
    """A plant of the user's own.

    Parameters
    ----------
    factory : callable (seed) -> callable (weights) -> grad_norms
        Called once per run; what it returns is called once per step with the weights of the step
        before (1/K at first) and returns K gradient norms. Keep state in the closure.
    n_tasks : int, at least 2
        Number of tasks K.

    Examples
    --------
    >>> plant = CallablePlant(lambda seed: lambda weights: [5.0 * weights[0], 1.0])
    >>> plant.start().measure().tolist()
    [2.5, 1.0]
    """

    factory: Callable[[int], Callable[[Array], ArrayLike]]
    n_tasks: int = 2

    def __post_init__(self) -> None:
        if not callable(self.factory):
            raise InputError(
                f"plant of type {type(self.factory).__name__}: give a function of the seed that "
                "returns a function from weights to gradient norms"
            )
        _check_int("n_tasks", self.n_tasks, 2, "balancing needs at least two losses")

    def start(self, seed: int = 0) -> PlantState:
        """A running copy: the factory called with the seed."""
        return _CallableState(self.factory(seed), self.n_tasks)


class _CallableState:
    def __init__(self, respond: Callable[[Array], ArrayLike], n_tasks: int) -> None:
        self._respond = respond
        self._n_tasks = n_tasks
        self._weights = np.full(n_tasks, 1.0 / n_tasks)
        self._norms: Array | None = None

    def measure(self, log_disturbance: ArrayLike | None = None) -> Array:
        if self._norms is None:
            norms = np.asarray(self._respond(self._weights), dtype=np.float64)
            if norms.shape != (self._n_tasks,):
                raise InputError(
                    f"the plant returned norms of shape {norms.shape} for n_tasks = "
                    f"{self._n_tasks}: return one per task"
                )
            self._norms = norms
        d = split_disturbance(log_disturbance, self._n_tasks)
        return np.asarray(self._norms * np.exp(d), dtype=np.float64)

    def apply(self, weights: ArrayLike) -> None:
        if self._norms is None:
            self.measure()
        self._weights = np.array(weights, dtype=np.float64)
        self._norms = None


_KINDS: dict[str, tuple[str, ...]] = {
    "log-ratio": ("rho", "a", "delay", "n_tasks"),
    "bowls": ("curvatures", "minimisers", "noise", "step_size", "start_at"),
    "replay": ("path",),
}
_INTEGERS = {"delay", "n_tasks"}
_LISTS = {"curvatures", "minimisers", "start_at"}


def parse_plant(text: str) -> LogRatio | QuadraticBowls | Replay:
    """A plant from its one-line description, as the command line takes it.

    Parameters
    ----------
    text : str
        ``log-ratio:rho=0.5,a=0.9,delay=1``, ``bowls:curvatures=500/1,minimisers=0/1,noise=0.1``
        (lists with slashes), or ``replay:PATH``.

    Raises
    ------
    InputError
        Unknown kind or key, a value that is no number, or one out of range.

    Examples
    --------
    >>> parse_plant("log-ratio:rho=0.5,a=0.9,delay=1")
    LogRatio(rho=0.5, a=0.9, delay=1, n_tasks=2)
    >>> parse_plant("log-ratio:gain=2")
    Traceback (most recent call last):
        ...
    gabactl.errors.InputError: plant log-ratio: unknown setting 'gain': choose from rho, a, delay, n_tasks
    """
    kind, _, rest = text.partition(":")
    kind = kind.strip()
    if kind not in _KINDS:
        raise InputError(
            f"plant {kind!r} is unknown: choose from {', '.join(_KINDS)}, "
            "such as log-ratio:rho=0.5,a=0.9,delay=1"
        )
    if kind == "replay":
        path = rest.removeprefix("path=").strip()
        if not path:
            raise InputError("plant replay: no file given: write replay:PATH")
        return Replay.from_trace(path)
    settings: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise InputError(f"plant {kind}: {item!r} is not of the form key=value")
        if key not in _KINDS[kind]:
            raise InputError(
                f"plant {kind}: unknown setting {key!r}: choose from {', '.join(_KINDS[kind])}"
            )
        if key in settings:
            raise InputError(f"plant {kind}: {key} is given twice: give it once")
        settings[key] = _parse_value(kind, key, value)
    required = ("rho",) if kind == "log-ratio" else ("curvatures", "minimisers")
    missing = [key for key in required if key not in settings]
    if missing:
        raise InputError(f"plant {kind}: {missing[0]} is missing: add {missing[0]}=...")
    return LogRatio(**settings) if kind == "log-ratio" else QuadraticBowls(**settings)


def _parse_value(kind: str, key: str, text: str) -> Any:
    try:
        if key in _INTEGERS:
            return int(text)
        if key in _LISTS:
            return tuple(float(part) for part in text.split("/"))
        if key == "noise" and "/" in text:
            return tuple(float(part) for part in text.split("/"))
        return float(text)
    except ValueError:
        wanted = "a whole number" if key in _INTEGERS else "a number"
        raise InputError(f"plant {kind}: {key} = {text!r} is not {wanted}") from None
