"""The main job: one report on a recorded run.

Examples
--------
>>> from gabactl.report import Report, build_report, write_html
"""

from __future__ import annotations

from gabactl.report.build import Report, build_report
from gabactl.report.page import write_html
from gabactl.report.pdf import write_pdf

__all__ = ["Report", "build_report", "write_html", "write_pdf"]
