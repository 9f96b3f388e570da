"""The way into the Numerai tournament: data, predictions, diagnostics, scores and models."""
