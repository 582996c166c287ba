"""The main job: one report on a recorded run.

Examples
--------
>>> from gabactl.reports import Report, report, write_html
"""

from __future__ import annotations

from gabactl.reports.build import Report, report
from gabactl.reports.page import write_html
from gabactl.reports.pdf import write_pdf

__all__ = ["Report", "report", "write_html", "write_pdf"]
