"""Everything of a run that lies on disk."""
