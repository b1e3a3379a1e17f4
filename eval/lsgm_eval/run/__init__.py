"""What an evaluation measures, step by step, cached and resumed."""
