"""Quality against cost: which points are measured, how, and what it costs to reach a quality."""
