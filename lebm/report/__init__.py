"""One self-contained page that compares runs."""

from lebm.report.page import report

__all__ = ["report"]
