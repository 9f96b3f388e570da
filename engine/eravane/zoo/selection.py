"""Which base models enter the ensemble: by mean CORR first, Sharpe second, from out-of-fold eras alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eravane.config import SelectionConfig
from eravane.metrics import HacMean, Summary, hac_mean, summarise
from eravane.zoo.specs import ModelSpec

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What selection says of one model, and why."""

    spec: ModelSpec
    summary: Summary
    corr: HacMean
    selected: bool
    reason: str


def select(
    specs: Sequence[ModelSpec],
    scores_ME: FloatArray,
    similarity_MM: FloatArray,
    config: SelectionConfig,
    hac_lag: int,
) -> list[Verdict]:
    """Judge every model by its out-of-fold scores.

    Models are taken in order of mean CORR (Sharpe, then name, break ties). A model is dropped when its mean is not
    above `minimum_corr`, when it correlates above `duplicate` with a model already kept, or when its cell or the
    pool is full. If fewer than `least` remain, the best of those that failed `minimum_corr` alone come back.

    Args:
        specs: M models.
        scores_ME: numerai_corr per model and era, NaN where a model has none; eras that selection may see.
        similarity_MM: mean correlation of the models' predictions over those eras.
        config: limits.
        hac_lag: Bartlett lag of the standard errors, eras.

    Returns:
        One verdict per model, in the order of `specs`.
    """
    summaries = [summarise(scores) for scores in scores_ME]
    order = sorted(range(len(specs)), key=lambda m: _merit(summaries[m], specs[m].model_id))
    reasons = _walk(order, specs, summaries, similarity_MM, config, config.minimum_corr)
    if sum(reason.startswith("kept") for reason in reasons.values()) < config.least:
        reasons = _top_up(order, specs, summaries, similarity_MM, config)
    return [
        Verdict(spec, summaries[m], hac_mean(scores_ME[m], hac_lag), reasons[m].startswith("kept"), reasons[m])
        for m, spec in enumerate(specs)
    ]


def _merit(summary: Summary, name: str) -> tuple[float, float, str]:
    # NaN sorts last: a model without a score is the worst.
    return -np.nan_to_num(summary.corr_mean, nan=-np.inf), -np.nan_to_num(summary.sharpe, nan=-np.inf), name


def _walk(
    order: Sequence[int],
    specs: Sequence[ModelSpec],
    summaries: Sequence[Summary],
    similarity_MM: FloatArray,
    config: SelectionConfig,
    minimum: float,
) -> dict[int, str]:
    reasons: dict[int, str] = {}
    kept: list[int] = []
    in_cell: Counter[tuple[str, str]] = Counter()
    for m in order:
        cell, mean = (specs[m].feature_set, specs[m].group), summaries[m].corr_mean
        twin = next((other for other in kept if similarity_MM[m, other] > config.duplicate), None)
        if np.isnan(mean):
            reasons[m] = "dropped: no out-of-fold score"
        elif mean <= minimum:
            reasons[m] = f"dropped: mean CORR {mean:.4f} is not above {minimum:g}"
        elif twin is not None:
            name = specs[twin].model_id
            reasons[m] = f"dropped: correlates {similarity_MM[m, twin]:.3f} with the better {name}"
        elif in_cell[cell] == config.per_cell:
            reasons[m] = f"dropped: {config.per_cell} better models in its cell"
        elif len(kept) == config.most:
            reasons[m] = f"dropped: {config.most} better models in all"
        else:
            kept.append(m)
            in_cell[cell] += 1
            reasons[m] = f"kept: number {len(kept)} by mean CORR"
    return reasons


def _top_up(
    order: Sequence[int],
    specs: Sequence[ModelSpec],
    summaries: Sequence[Summary],
    similarity_MM: FloatArray,
    config: SelectionConfig,
) -> dict[int, str]:
    reasons = _walk(order, specs, summaries, similarity_MM, config, -np.inf)
    kept = [m for m in order if reasons[m].startswith("kept")]
    for rank, m in enumerate(kept):
        if summaries[m].corr_mean > config.minimum_corr:
            continue
        if rank < config.least:
            reasons[m] = f"kept: among the best {config.least} although mean CORR is {summaries[m].corr_mean:.4f}"
        else:
            reasons[m] = f"dropped: mean CORR {summaries[m].corr_mean:.4f} is not above {config.minimum_corr:g}"
    return reasons
