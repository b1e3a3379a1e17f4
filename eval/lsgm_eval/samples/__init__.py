"""One pass from a model's seeds to everything that is measured of its images."""
