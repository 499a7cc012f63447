"""`catchment report`: one HTML page about a past run."""

from catchment.cli.html_report.command import command

__all__ = ["command"]
