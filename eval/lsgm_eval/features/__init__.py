"""Feature spaces by name, their statistics, and the statistics of the data."""
