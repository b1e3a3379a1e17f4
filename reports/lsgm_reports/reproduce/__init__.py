"""From a row, or a training run, to the command that makes it again, and what came of running that."""
