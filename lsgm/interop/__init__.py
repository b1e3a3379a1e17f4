"""Models from elsewhere, turned into this package's own."""
