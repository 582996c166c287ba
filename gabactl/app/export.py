"""The settings as files to take away: TOML for the command line, Python for a training script."""

from __future__ import annotations

from gabactl.law.spec import GabaSpec

__all__ = ["python_source"]


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
