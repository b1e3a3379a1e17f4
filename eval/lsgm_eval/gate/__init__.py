"""The gate: a checkpoint against golden rows, with tolerances from what was recorded beside them."""
