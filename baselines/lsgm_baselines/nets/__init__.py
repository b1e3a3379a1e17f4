"""Networks that published baselines need and the score network of this package cannot express."""
