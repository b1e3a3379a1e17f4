"""Two sets of images, or their statistics, and how far one is from the other: what `lsgm fid` measures."""
