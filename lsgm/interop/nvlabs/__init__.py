"""Checkpoints of the LSGM authors' released code: read without executing anything, translated by tables."""
