"""What a run needs, and what this machine has."""
