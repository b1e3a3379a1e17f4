"""Bounds on -log P(x) of a task's images: scored, kept, and made into rows."""
