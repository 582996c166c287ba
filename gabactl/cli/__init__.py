"""The command line: ``gabactl COMMAND``.

Every module here whose name has no leading underscore is named as its command, which is a function
(or a family of commands) of that name in it. Such a module imports nothing heavy at its top:
``gabactl --help`` loads all.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from gabactl.base.errors import InputError, Stopped, packages_for
from gabactl.base.version import __version__
from gabactl.cli._help import PlainGroup, add

__all__ = ["main"]

#: Every command, by who asks: the order of the help.
_SECTIONS = {
    "Your run": ("report", "watch", "check", "tune", "dashboard", "trace"),
    "Your loop": ("analyze", "simulate", "sweep", "identify", "fuzz"),
    "The paper": ("prove", "claims"),
    "C-MAPSS": ("cmapss",),
}
_COMMANDS = tuple(name for names in _SECTIONS.values() for name in names)


def build_app(commands: Sequence[str] = _COMMANDS) -> typer.Typer:
    """The command line with these commands.

    Parameters
    ----------
    commands : sequence of str
        Their names; default: all.

    Examples
    --------
    >>> len(build_app(["report"]).registered_commands)
    1
    """
    app = typer.Typer(
        name="gabactl",
        help="Loss balancing as feedback control: analyse, prove, fuzz, simulate, train, report.",
        cls=PlainGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_of_every_command)
    for section, names in _SECTIONS.items():
        for name in names:
            if name in commands:
                module = importlib.import_module(f"gabactl.cli.{name}")
                add(app, name, getattr(module, name), section)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gabactl {__version__}")
        raise typer.Exit


def _of_every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


def _needed(arguments: Sequence[str]) -> Sequence[str]:
    """The commands this call can reach: building all of them costs a third of a second."""
    if list(arguments) == ["--version"]:
        return ()
    name = next((a for a in arguments if not a.startswith("-")), None)
    return (name,) if name in _COMMANDS else _COMMANDS


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: done. 1: a finding (a violated bound, a failed check). 2: bad input, one line on stderr.
    130: interrupted; 143: terminated.

    Parameters
    ----------
    arguments : list of str, optional
        Default: those of the process.

    Examples
    --------
    >>> main(["--version"])
    gabactl 0...
    0
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        with packages_for("this command"):
            app = build_app(_needed(given))
            code = app(args=given, prog_name="gabactl", standalone_mode=False)
    except (InputError, Stopped) as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing is left to say to it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except Exception as error:
        if _signals:
            # A library that is interrupted while it is loaded turns that into an error of its own.
            _half_loaded.append(error)
            return _interrupted()
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return 0
        # typer's usage errors carry a message and an exit code; anything else is a bug of ours.
        if hasattr(error, "format_message"):
            return _fail(str(error.format_message()), getattr(error, "exit_code", 2))
        if type(error).__name__ == "Abort":
            return _interrupted()
        known = _outside(error)
        if known:
            return _fail(known, 2)
        if os.environ.get("GABACTL_TRACEBACK"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} "
            "(please report it; GABACTL_TRACEBACK=1 shows the traceback)",
            70,
        )
    if code == 130 and _signals:
        return _interrupted()  # typer makes an exit code of it, without a word
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    print("gabactl: " + " ".join(message.split()), file=sys.stderr)
    return code


#: Ctrl-C or SIGTERM, as :func:`_stop` saw it.
_signals: list[int] = []
#: What a library made of it.
_half_loaded: list[Exception] = []


def _stop(number: int, frame: object) -> None:
    """SIGTERM as Ctrl-C: whatever tidies up after the one tidies up after the other."""
    _signals.append(number)
    raise KeyboardInterrupt


def _interrupted() -> int:
    if signal.SIGTERM in _signals:
        return _fail("terminated", 128 + signal.SIGTERM)
    return _fail("interrupted", 130)


def _outside(error: Exception) -> str:
    """What the machine refused, in words; empty where the fault is ours."""
    if isinstance(error, MemoryError):
        return f"out of memory ({str(error) or 'no more is to be had'}): ask for less at once"
    if isinstance(error, SystemError) and not _some_memory():
        # Native code that is refused memory and fails to say so.
        return f"out of memory ({error}): ask for less at once, or free some"
    if any(words in str(error) for words in _NO_MEMORY):
        return f"out of memory ({error}): ask for less at once, or free some"
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror}: {_REFUSALS[error.errno]}"
    return ""


def _some_memory() -> bool:
    """Whether 64 MiB more could be had."""
    import mmap

    try:
        mmap.mmap(-1, 64 << 20).close()
    except (MemoryError, OSError):
        return False
    return True


#: How those say it who do not raise MemoryError: the loader of libraries, and threads.
_NO_MEMORY = (
    "failed to map segment from shared object",
    "cannot allocate memory",
    "Cannot allocate memory",
    "can't start new thread",
)
_REFUSALS = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some space, or choose another place",
    errno.EFBIG: "free some space, or choose another place",
    errno.EACCES: "check the rights, or choose another place",
    errno.EPERM: "check the rights, or choose another place",
    errno.EROFS: "choose another place",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "give a file",
    errno.EIO: "check the disk",
    errno.ENOMEM: "ask for less at once",
    errno.EMFILE: "raise the limit on open files",
}


def _entry() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    code = main()
    if _half_loaded:
        # Python itself may crash on a library that is half there when it tidies up at its end.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
