"""Models by a word of the command line: runs, ready images, factories in one's own code."""
