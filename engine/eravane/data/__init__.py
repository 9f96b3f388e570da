"""Files of a dataset, the store made of them, and prepared features by era."""
