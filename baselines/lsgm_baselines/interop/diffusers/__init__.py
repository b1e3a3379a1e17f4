"""DDPMs of the diffusers library: their folders, read without the library and without executing anything."""
