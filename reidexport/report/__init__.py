"""Results of the other commands as one HTML page: tables, plots, ranked lists."""

from reidexport.report.page import write_report
from reidexport.report.results import read_results

__all__ = ["read_results", "write_report"]
