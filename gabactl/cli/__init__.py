"""The command line: ``gabactl COMMAND``.

Every module here whose name has no leading underscore is a command (or a family of them) and has
a ``register(app)``. Such a module imports nothing heavy at its top: ``gabactl --help`` loads all.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from typing import Annotated

import typer

import gabactl
from gabactl.errors import InputError

__all__ = ["app", "main"]

app = typer.Typer(
    name="gabactl",
    help="Loss balancing as feedback control: analyse, prove, fuzz, simulate, train, report.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gabactl {gabactl.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    pass


for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"gabactl.cli.{_module.name}").register(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code.

    0: done. 1: a finding (a violated bound, a failed check). 2: bad input, one line on stderr.
    130: interrupted.

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
    try:
        code = app(args=arguments, prog_name="gabactl", standalone_mode=False)
    except InputError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader of our output is gone (`| head`): nothing is left to say to it.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except ModuleNotFoundError as error:
        return _fail(_missing(error), 2)
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error)
            return 0
        # typer's usage errors carry a message and an exit code; anything else is a bug of ours.
        if hasattr(error, "format_message"):
            return _fail(str(error.format_message()), getattr(error, "exit_code", 2))
        if type(error).__name__ == "Abort":
            return _fail("interrupted", 130)
        if os.environ.get("GABACTL_TRACEBACK"):
            raise
        return _fail(
            f"internal error: {type(error).__name__}: {error} "
            "(please report it; GABACTL_TRACEBACK=1 shows the traceback)",
            70,
        )
    return code if isinstance(code, int) else 0


_EXTRAS = {
    "torch": "torch",
    "torchjd": "peers",
    "panel": "app",
    "bokeh": "app",
    "dask": "cluster",
    "ray": "cluster",
    "cvxpy": "lmi",
    "atheris": "fuzz",
}


def _missing(error: ModuleNotFoundError) -> str:
    package = (error.name or "").partition(".")[0]
    extra = _EXTRAS.get(package)
    remedy = f"pip install 'gabactl[{extra}]'" if extra else f"pip install {package}"
    return f"this command needs the package {package!r}, which is not installed: {remedy}"


def _fail(message: str, code: int) -> int:
    print("gabactl: " + " ".join(message.split()), file=sys.stderr)
    return code


def _entry() -> None:
    sys.exit(main())
