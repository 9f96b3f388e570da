"""Learners: training and evaluation of one base model."""
