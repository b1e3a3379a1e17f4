"""Two runs side by side: what changed in configuration, code, data and training, and what the numbers say."""
