"""Checkpoints of score_sde_pytorch (arXiv:2011.13456): read without executing, become run directories."""
