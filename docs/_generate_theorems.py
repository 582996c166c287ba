"""Write the pages on theorems and claims from the objects that are proved.

python docs/_generate_theorems.py            # write
python docs/_generate_theorems.py --check    # exit 1 when a page is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from gabactl import ledger
from gabactl.proving.library import load, proof_files

DOCS = Path(__file__).parent
MARK = "<!-- Written by docs/_generate_theorems.py from the theorem objects. Do not edit. -->"


def theorems_page() -> str:
    """All theorems, a family a section."""
    lines = [
        MARK,
        "# Theorems",
        "",
        "What is proved about the controller, and what is refuted. `gabactl prove` decides all of "
        "it, `gabactl prove ID --details` shows a derivation, core or counterexample, and "
        "`gabactl prove --mutants` plants the errors listed here, each of which must turn its "
        "verdict. To add your own, see [](prove-your-own-rule.md).",
        "",
    ]
    for file in proof_files():
        module = file.read_text(encoding="utf-8").split('"""')[1].strip()
        title, _, rest = module.partition("\n")
        lines += [f"## {title.rstrip('.')}", ""]
        if rest.strip():
            lines += [_escaped(" ".join(rest.split())), ""]
        for item in load(file):
            lines += [
                f"### {item.id}",
                "",
                f"**{item.expect}**: {_escaped(item.statement)}",
                "",
                f"- Given: {_escaped('; '.join(item.given)) or 'nothing'}.",
                f"- Method: {item.method}. Source: {_escaped(item.source)}.",
                f"- Turned by: {_escaped('; '.join(item.mutants))}.",
                "",
            ]
    return "\n".join(lines)


def claims_page() -> str:
    """The ledger: what is expected, and how to settle it."""
    lines = [
        MARK,
        "# Claims of the literature",
        "",
        "Verdicts are reached anew by `gabactl claims` (`--details` for the numbers, `--html FILE` "
        "for a page); here stands what is expected. `not_run` means that no recorded result "
        "comes with this copy.",
        "",
        "| id | claim | expected | settled by |",
        "|---|---|---|---|",
    ]
    for claim in ledger():
        by = ", ".join(f"[{p.theorem}](theorems.md#{p.theorem.lower()})" for p in claim.parts)
        lines.append(
            f"| {claim.id} | {_cell(claim.statement)} | {claim.expect} | "
            f"{claim.method}{': ' + by if by else ''} |"
        )
    notes = [f"- {claim.id}: {_escaped(claim.note)}" for claim in ledger() if claim.note]
    return "\n".join([*lines, "", "## Notes", "", *notes, ""])


def _escaped(text: str) -> str:
    for sign in "\\*_<[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


PAGES = {"theorems.md": theorems_page, "claims.md": claims_page}


def main(arguments: list[str]) -> int:
    """Write the pages, or check them."""
    stale = []
    for name, page in PAGES.items():
        file, text = DOCS / name, page()
        if "--check" not in arguments:
            file.write_text(text, encoding="utf-8")
        elif not file.is_file() or file.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"out of date: {', '.join(stale)}; run python docs/_generate_theorems.py")
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
