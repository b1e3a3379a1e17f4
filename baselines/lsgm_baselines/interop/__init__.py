"""Models trained by other code, read and translated into runs of this one."""
