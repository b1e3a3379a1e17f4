"""Training: stages, budgets, checkpoints, processes, signals. The engine knows no model."""
