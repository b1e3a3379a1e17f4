"""The parts of the hierarchical VAE: NVAE (arXiv:2007.03898) in the variant of LSGM (arXiv:2106.05931)."""
