"""State of a run on disk: run folder, checkpoints, journal, resolved eras."""
