"""Tables in the form of those of arXiv:2106.05931: measured lines, a rule, published lines."""

from __future__ import annotations

from lsgm_reports.paper.tables import paper_tables

__all__ = ["paper_tables"]
