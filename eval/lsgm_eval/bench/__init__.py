"""Benchmarks of the evaluation, found by ``lsgm bench`` through the entry-point group ``lsgm.bench``."""
