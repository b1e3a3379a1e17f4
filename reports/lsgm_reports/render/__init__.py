"""A report as Markdown, LaTeX, terminal text, CSV and one HTML page."""
