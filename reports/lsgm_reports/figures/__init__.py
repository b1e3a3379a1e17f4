"""Figures: quality against cost, and how they look."""
