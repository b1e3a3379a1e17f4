"""Bounds on -log P(x): densities by probability flow, and many draws of z per image."""
