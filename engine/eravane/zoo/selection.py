"""Selection of base models: by mean CORR first, Sharpe second, from out-of-fold eras alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from eravane.core.arrays import Floats
from eravane.core.config import SelectionConfig
from eravane.core.errors import ConfigError
from eravane.scoring.metrics import HacMean, Summary, hac_mean, summarise
from eravane.scoring.payout import RULES, PayoutRule
from eravane.zoo.specs import ModelSpec

NAMES = {"corr": "CORR", "mmc": "MMC", "bmc": "BMC", "payout": "payout mix"}


class Outcome(Enum):
    """Outcome of selection for a model."""

    KEPT = "kept"
    RESCUED = "kept although its CORR is too low, because too few others passed"
    DROPPED = "dropped"

    @property
    def selected(self) -> bool:
        """Whether the model enters the ensemble."""
        return self is not Outcome.DROPPED


@dataclass(frozen=True)
class Verdict:
    """Selection's decision on one model, with the reason.

    Attributes:
        spec: the model.
        summary: of its CORR over the eras that selection may see.
        corr: mean CORR with its HAC error.
        sharpe_se: HAC error of the Sharpe ratio.
        criterion: mean of what models are ranked by, with its HAC error, over the eras that have it.
        outcome, reason: the decision, and a sentence for people.
    """

    spec: ModelSpec
    summary: Summary
    corr: HacMean
    sharpe_se: float
    criterion: HacMean
    outcome: Outcome
    reason: str

    @property
    def selected(self) -> bool:
        """Whether the model enters the ensemble."""
        return self.outcome.selected


def select(
    specs: Sequence[ModelSpec],
    scores_ME: Floats,
    similarity_MM: Floats,
    config: SelectionConfig,
    hac_lag: int,
    beyond: Mapping[str, Floats] | None = None,
    payout: PayoutRule = RULES[-1],
) -> list[Verdict]:
    """Judge every model by its out-of-fold scores.

    Models are taken in order of the criterion's mean (Sharpe, then name, break ties). A model is dropped when its mean
    CORR is not above `minimum_corr` or below the floor, when it correlates above `duplicate` with a model already kept,
    or when its cell or the pool is full. Members from outside are kept. If fewer than `least` remain, the best of those
    that failed for their CORR alone come back.

    Args:
        specs: M models.
        scores_ME: numerai_corr per model and era, NaN where a model has none; eras that selection may see.
        similarity_MM: mean correlation of the models' predictions over those eras.
        config: limits.
        hac_lag: Bartlett lag of the standard errors, eras.
        payout: what is paid, for the criterion "payout".
        beyond: "mmc" or "bmc" -> contribution per model and era, NaN where the reference is missing.

    Returns:
        One verdict per model, in the order of `specs`.

    Raises:
        ConfigError: the criterion's reference has no era in common with the out-of-fold eras.
    """
    summaries = [summarise(scores) for scores in scores_ME]
    criterion_ME = _criterion(scores_ME, beyond or {}, config, payout)
    criteria = [hac_mean(values, hac_lag) for values in criterion_ME]
    sharpes = [summarise(values).sharpe for values in criterion_ME]
    order = sorted(range(len(specs)), key=lambda m: _merit(specs[m], criteria[m].mean, sharpes[m]))
    judge = _Judge(specs, summaries, criteria, similarity_MM, config)
    decisions = judge.decide(order, judge.minimum)
    if sum(decision.outcome.selected for decision in decisions.values()) < config.least:
        decisions = judge.top_up(order)
    return [
        Verdict(
            spec,
            summaries[m],
            hac_mean(scores_ME[m], hac_lag),
            sharpe_error(scores_ME[m], hac_lag),
            criteria[m],
            decisions[m].outcome,
            decisions[m].reason,
        )
        for m, spec in enumerate(specs)
    ]


def sharpe_error(scores_E: Floats, lag: int) -> float:
    """HAC error of mean/std over eras, by the delta method (Lo 2002): the error of the mean of its influence series."""
    x = scores_E[~np.isnan(scores_E)]
    std = x.std() if x.size else 0.0
    if not std > 0:
        return float("nan")
    z = (x - x.mean()) / std
    return hac_mean(z - x.mean() / std * (z**2 - 1) / 2, lag).se


def proxy_relation(beyond: Mapping[str, Floats]) -> str:
    """How BMC went with MMC on the eras that have both, in words; empty where no era has."""
    if not {"mmc", "bmc"} <= set(beyond):
        return ""
    both_ME = np.isfinite(beyond["mmc"]) & np.isfinite(beyond["bmc"])
    mmc, bmc = beyond["mmc"][both_ME], beyond["bmc"][both_ME]
    eras = int(both_ME.any(axis=0).sum())
    if eras < 2 or not bmc.std() > 0 or not mmc.std() > 0:
        return ""
    slope, alike = float((mmc @ bmc) / (bmc @ bmc)), float(np.corrcoef(mmc, bmc)[0, 1])
    found = f"on {eras} shared eras MMC = {slope:.2f} BMC, correlation {alike:.2f}"
    return f"BMC stands in for MMC before the meta model: {found}"


def _criterion(scores_ME: Floats, beyond: Mapping[str, Floats], config: SelectionConfig, payout: PayoutRule) -> Floats:
    if config.criterion == "corr":
        return scores_ME
    wanted = "bmc" if config.criterion == "bmc" else "mmc"
    found_ME = beyond[wanted] if wanted in beyond else np.full_like(scores_ME, np.nan)
    if config.criterion == "payout" and "bmc" in beyond:
        found_ME = np.where(np.isnan(found_ME), beyond["bmc"], found_ME)
    if np.isnan(found_ME).all():
        raise ConfigError(
            f'selection.criterion "{config.criterion}": its reference covers none of the out-of-fold eras; use "corr", '
            "or newer folds"
        )
    if config.criterion == "payout":
        return payout.mix(scores_ME, found_ME)
    return found_ME


def _merit(spec: ModelSpec, mean: float, sharpe: float) -> tuple[bool, float, float, str]:
    # NaN sorts last: a model without a score is the worst. Members come first: they are always kept.
    return not spec.outside, -np.nan_to_num(mean, nan=-np.inf), -np.nan_to_num(sharpe, nan=-np.inf), spec.model_id


def corr_bounds(config: SelectionConfig, outside: Sequence[float]) -> tuple[float, float]:
    """The bound that a model's mean CORR must exceed (the higher of minimum and floor), and the floor.

    Args:
        config: limits.
        outside: mean CORR of the members from outside; the floor is a share of the best one's.
    """
    best = max(outside, default=0.0)
    floor = config.floor * best if config.floor and best > 0 else -np.inf
    return max(config.minimum_corr, floor), floor


@dataclass(frozen=True)
class _Decision:
    outcome: Outcome
    reason: str


def _dropped(reason: str) -> _Decision:
    return _Decision(Outcome.DROPPED, f"dropped: {reason}")


class _Judge:
    """Decides in order of merit which models are kept."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        summaries: Sequence[Summary],
        criteria: Sequence[HacMean],
        similarity_MM: Floats,
        config: SelectionConfig,
    ) -> None:
        self._specs, self._summaries, self._criteria = specs, summaries, criteria
        self._similarity_MM, self._config = similarity_MM, config
        outside = [summary.corr_mean for spec, summary in zip(specs, summaries, strict=True) if spec.outside]
        self.minimum, self._floor = corr_bounds(config, outside)

    def decide(self, order: Sequence[int], minimum: float) -> dict[int, _Decision]:
        """Decisions by model, where a mean CORR must exceed `minimum`."""
        decisions, kept = dict[int, _Decision](), list[int]()
        in_cell: Counter[tuple[str, str]] = Counter()
        for m in order:
            decisions[m] = self._decide(m, minimum, kept, in_cell)
            if decisions[m].outcome.selected:
                kept.append(m)
        return decisions

    def _decide(self, m: int, minimum: float, kept: Sequence[int], in_cell: Counter[tuple[str, str]]) -> _Decision:
        config, spec, mean = self._config, self._specs[m], self._criteria[m].mean
        cell, corr = (spec.feature_set, spec.group), self._summaries[m].corr_mean
        if spec.outside:
            return _Decision(Outcome.KEPT, f"kept: a member from outside, mean {NAMES[config.criterion]} {mean:.4f}")
        if np.isnan(mean):
            return _dropped("no out-of-fold score")
        if corr <= minimum:
            return self._too_low(corr)
        twin = next((other for other in kept if self._similarity_MM[m, other] > config.duplicate), None)
        if twin is not None:
            better = self._specs[twin].model_id
            return _dropped(f"correlates {self._similarity_MM[m, twin]:.3f} with the better {better}")
        if in_cell[cell] == config.per_cell:
            return _dropped(f"{config.per_cell} better models in its cell")
        if sum(in_cell.values()) == config.most:
            return _dropped(f"{config.most} better models in all")
        in_cell[cell] += 1
        return _Decision(Outcome.KEPT, f"kept: number {sum(in_cell.values())} by mean {NAMES[config.criterion]}")

    def top_up(self, order: Sequence[int]) -> dict[int, _Decision]:
        """Decisions where the best `least` models are kept regardless of their CORR."""
        decisions = self.decide(order, -np.inf)
        kept = [m for m in order if decisions[m].outcome.selected]
        for rank, m in enumerate(kept):
            corr = self._summaries[m].corr_mean
            if self._specs[m].outside or corr > self.minimum:
                continue
            if rank < self._config.least:
                reason = f"kept: among the best {self._config.least} although mean CORR is {corr:.4f}"
                decisions[m] = _Decision(Outcome.RESCUED, reason)
            else:
                decisions[m] = self._too_low(corr)
        return decisions

    def _too_low(self, corr: float) -> _Decision:
        if corr <= self._config.minimum_corr:
            return _dropped(f"mean CORR {corr:.4f} is not above {self._config.minimum_corr:g}")
        return _dropped(f"mean CORR {corr:.4f} is not above the floor {self._floor:.4f} of the members from outside")
