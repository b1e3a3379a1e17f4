"""What is computed of features, and how certain it is."""
