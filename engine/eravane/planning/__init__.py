"""Needs of a run in memory, time and disk, and the facts of this machine."""
