"""From the files of a dataset to prepared features by era."""
