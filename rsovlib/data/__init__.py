"""What is segmented: rasters, tiles, class prompts, simulated scenes and their words."""
