"""The variational autoencoder: q(z_0 | x) by groups and p(x | z_0), small, flat and hierarchical."""
