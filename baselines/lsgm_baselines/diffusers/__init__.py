"""DDPMs of the diffusers library: their folders become run directories."""
