"""One proving process: reads a request a line, answers a line. See :mod:`gabactl.proving.engine`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

from gabactl.base.errors import InputError
from gabactl.proving.library import load
from gabactl.proving.theorem import Outcome


def serve() -> None:
    """Decide one theorem after another, as asked on standard input, until it ends."""
    answers = sys.stdout
    # What a theorem file prints must not mix with the answers.
    with contextlib.redirect_stdout(sys.stderr):
        for line in sys.stdin:
            request = json.loads(line)
            try:
                found = {t.id: t for t in load(Path(request["path"]))}
                outcome = found[request["id"]].prove(request["mutant"])
            except (InputError, KeyError) as error:
                outcome = Outcome("unknown", reason=str(error))
            answers.write(json.dumps(outcome.to_dict()) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve()
