"""The tables of a report, before they have a format."""
