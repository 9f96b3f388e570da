"""Objections to sending predictions that differ too much from the last submission."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eravane.core.arrays import Floats
from eravane.scoring.ensemble import one_era
from eravane.tournament.dataset import read_columns
from eravane.tournament.receipts import Profile
from eravane_kernels import cpu

# Between two rounds a steady model keeps its exposures within a few hundredths (7,000 rows: standard error .012)
# and its weights within a few tenths; the limits are several times that.
LEAST_CORRELATION = 0.5
MOST_EXPOSURE_CHANGE = 0.2
MOST_LARGEST_EXPOSURE_RISE = 0.15
MOST_WEIGHT_MOVED = 0.5
LEAST_SHARED = 50  # rows; fewer give no correlation


def profile_of(
    frame: pd.DataFrame,
    live: Path,
    live_ids: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    weights: Mapping[str, float],
) -> Profile:
    """Measure predictions against the live file they are for.

    Args:
        frame: columns `id` and `prediction`, one row per live id.
        live: the live parquet file; its rows have `live_ids`, in order.
        live_ids: N ids.
        groups: feature group -> feature columns of the live file.
        weights: base model -> weight, kept as it is.
    """
    prediction_N = frame.set_index("id")["prediction"].loc[list(live_ids)].to_numpy(dtype=np.float64)
    exposures, largest, missing = {}, 0.0, []
    for group, columns in groups.items():
        values_FN = _without_gaps(read_columns(live, list(columns)))
        correlations_F = _correlations(values_FN, prediction_N)
        largest = max(largest, float(np.abs(correlations_F).max(initial=0.0)))
        exposures[group] = float(_correlations(values_FN.mean(axis=0)[None, :], prediction_N)[0])
        if (values_FN.min(axis=1) == values_FN.max(axis=1)).all():
            missing.append(group)
    return Profile(exposures, largest, tuple(missing), dict(weights))


def _without_gaps(values_FN: NDArray[np.float32]) -> Floats:
    """Features with missing values at the mean of the others, or 0 where there are none."""
    known_FN = ~np.isnan(values_FN)
    means_F = np.nan_to_num(values_FN).sum(axis=1) / np.maximum(known_FN.sum(axis=1), 1)
    return np.where(known_FN, values_FN, means_F[:, None]).astype(np.float64)


def _correlations(values_FN: Floats, prediction_N: Floats) -> Floats:
    """Correlation of each row with the predictions, float64 [F]; 0 for a constant feature."""
    return np.nan_to_num(cpu.exposure(prediction_N[None, :], values_FN, one_era(prediction_N.size))[0, :, 0])


def correlation(first: pd.DataFrame, second: pd.DataFrame) -> float | None:
    """Rank correlation of two submissions over the ids they share; None when they share too few."""
    shared = first.merge(second, on="id", suffixes=("_first", "_second"))
    if len(shared) < LEAST_SHARED:
        return None
    return float(shared["prediction_first"].rank().corr(shared["prediction_second"].rank()))


def objections(now: Profile, last: Profile) -> list[str]:
    """Changes since the last submission that are too large, one sentence each."""
    found = []
    shared = now.exposures.keys() & last.exposures.keys()
    jumps = {group: now.exposures[group] - last.exposures[group] for group in shared}
    widest = max(jumps, key=lambda group: abs(jumps[group]), default=None)
    if widest is not None and abs(jumps[widest]) > MOST_EXPOSURE_CHANGE:
        before, after = last.exposures[widest], now.exposures[widest]
        found.append(f"the exposure to {widest} jumped from {before:+.3f} to {after:+.3f}")
    if now.largest_exposure - last.largest_exposure > MOST_LARGEST_EXPOSURE_RISE:
        found.append(
            f"the largest exposure to one feature rose from {last.largest_exposure:.3f} to {now.largest_exposure:.3f}"
        )
    absent = sorted((set(now.missing) | (last.exposures.keys() - now.exposures.keys())) - set(last.missing))
    if absent:
        found.append(f"feature groups are missing in the live file: {', '.join(absent)}")
    names = now.weights.keys() | last.weights.keys()
    moved = sum(abs(now.weights.get(name, 0.0) - last.weights.get(name, 0.0)) for name in names) / 2
    if now.weights and last.weights and moved > MOST_WEIGHT_MOVED:
        found.append(f"{moved:.0%} of the weight moved to other base models")
    return found


def correlation_objections(first: pd.DataFrame, second: pd.DataFrame, second_name: str) -> list[str]:
    """An objection when two submissions rank the rows they share too differently."""
    found = correlation(first, second)
    if found is None or found >= LEAST_CORRELATION:
        return []
    return [f"the rank correlation with {second_name} is {found:+.2f}"]
