"""Run directories: checkpoints, metrics, provenance, and what is made of them; without an engine."""
