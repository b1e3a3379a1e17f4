"""Tables in the form of those of arXiv:2106.05931: measured lines, a rule, published lines."""
