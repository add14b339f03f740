"""A study as one web page: a file that opens without a network, with its images and its exports inside."""

from studies.report.page.document import page

__all__ = ["page"]
