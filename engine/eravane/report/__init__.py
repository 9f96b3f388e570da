"""Reports of runs: one page per run, and paired comparisons of runs."""

from __future__ import annotations

from eravane.report.comparison import Comparison, compare
from eravane.report.load import RunView, load_run
from eravane.report.page import write_report

__all__ = ["Comparison", "RunView", "compare", "load_run", "write_report"]
