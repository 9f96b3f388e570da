"""Scores of predictions: Numerai correlation, contribution, ensembles, neutralization."""
