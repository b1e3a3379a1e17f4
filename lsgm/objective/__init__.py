"""What training minimises: the bound of theorem 1, the losses of the stages, the KL term by groups."""
