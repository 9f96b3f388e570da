"""Stages of a run, and the programs made of them."""
