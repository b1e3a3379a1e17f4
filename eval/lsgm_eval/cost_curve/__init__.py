"""Quality against cost: which points are measured, and what it costs to reach a quality."""
