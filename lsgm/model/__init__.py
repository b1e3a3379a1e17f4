"""Models: what is trained, what is saved, what is measured."""
