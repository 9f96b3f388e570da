"""Eras, label lags, folds and periods: the only place that knows time."""
