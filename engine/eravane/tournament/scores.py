"""Live performance of a model beside what a backtest promised, and what the tournament pays for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eravane.core.errors import RunError
from eravane.scoring.metrics import Summary, hac_mean, summarise
from eravane.tournament import connect
from eravane.tournament.receipts import check_model_name
from eravane.tournament.references import CORR, reference_scores

if TYPE_CHECKING:
    from eravane.tournament.client import Client

# Five rounds open a week and a round lasts four weeks: 20 neighbours share returns.
OVERLAPPING_ROUNDS = 20


@dataclass(frozen=True)
class LiveScore:
    """A live metric of a model.

    Attributes:
        metric: the tournament's name of it.
        rounds: rounds with a score; `resolved` of them are final.
        summary: over all of them, each with its newest score.
        promised: the same metric in the backtest, when a run was given and knows it.
        t: (live mean - promised mean) over its standard error, rounds that overlap accounted for.
    """

    metric: str
    rounds: int
    resolved: int
    summary: Summary
    promised: Summary | None
    t: float | None


@dataclass(frozen=True)
class Multiplier:
    """What a round pays for a score: payout = stake * clip(payout_factor * sum(multiplier * score), +-clip)."""

    round: int
    metric: str
    multiplier: float
    payout_factor: float | None
    clip: float | None


@dataclass(frozen=True)
class ScoreSheet:
    """Live scores of a model and the current multipliers."""

    model: str
    scores: tuple[LiveScore, ...]
    multipliers: tuple[Multiplier, ...]


def scores(model_name: str, run: Path | None = None, *, client: Client | None = None) -> ScoreSheet:
    """Read a model's live scores and the multipliers of the newest round that has them.

    Args:
        model_name: any model of the tournament; no credentials are needed.
        run: run folder whose backtest is put beside them; None shows live scores alone.
        client: the tournament's API; None connects.

    Raises:
        ApiError: there is no such model, or the tournament does not answer.
        RunError: the run folder has no metrics.
    """
    check_model_name(model_name)
    client = client or connect()
    promises = {} if run is None else _promises(run)
    listed = pd.DataFrame(client.scores(client.public_model_id(model_name)))
    rounds = client.unresolved_rounds()
    return ScoreSheet(
        model=model_name,
        scores=tuple(client.shaped("submissionScores", lambda: _all_live(listed, promises))),
        multipliers=tuple(client.shaped("rounds", lambda: _multipliers(rounds))),
    )


def _all_live(listed: pd.DataFrame, promises: Mapping[str, Summary]) -> list[LiveScore]:
    if listed.empty:
        return []
    return [_live(str(name), rows, promises) for name, rows in listed.groupby("displayName")]


def _live(metric: str, rows: pd.DataFrame, promises: Mapping[str, Summary]) -> LiveScore:
    newest = rows[rows["value"].notna()].sort_values(["roundNumber", "day"]).groupby("roundNumber").last()
    values = newest["value"].to_numpy(dtype=np.float64)
    promised = promises.get(_ours(metric))
    t = None
    if promised is not None and values.size > 1:
        error = hac_mean(values, OVERLAPPING_ROUNDS).se
        t = (float(values.mean()) - promised.corr_mean) / error if error > 0 else None
    return LiveScore(
        metric=metric,
        rounds=len(newest),
        resolved=int(newest["resolved"].astype(bool).sum()),
        summary=summarise(values),
        promised=promised,
        t=t,
    )


def _ours(metric: str) -> str:
    """Our name of a live metric: `canon_mmc20` is MMC, `v2_corr20` is CORR."""
    name = metric.lower()
    return next((ours for ours in ("cwmm", "mmc", "bmc", "fnc", "corr") if ours in name), name).upper()


def _promises(run: Path) -> dict[str, Summary]:
    """What the backtest says of each metric that it knows.

    Raises:
        RunError: the run folder has no metrics.
    """
    try:
        noted = json.loads((run / "metrics.json").read_text(encoding="utf-8"))["series"]["ensemble"]
        mean, std, sharpe, fall = (
            np.nan if noted[name] is None else float(noted[name])
            for name in ("corr_mean", "corr_std", "sharpe", "max_drawdown")
        )
        corr = Summary(mean, std, sharpe, fall, int(noted["n_eras"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{run} has no metrics.json of a finished run; `eravane run` writes it") from None
    references = {score.metric.split()[0]: score.summary for score in reference_scores(run)}
    return {**references, CORR: corr}


def _multipliers(rounds: Sequence[Mapping[str, Any]]) -> list[Multiplier]:
    """The multipliers of the newest round that pays for anything."""
    for entry in rounds:
        paying = [config for config in entry.get("roundScoreConfigs") or [] if config.get("isPayout")]
        if paying:
            return [_multiplier(entry, config) for config in paying]
    return []


def _multiplier(entry: Mapping[str, Any], config: Mapping[str, Any]) -> Multiplier:
    factor = config.get("payoutFactor") or entry.get("payoutFactor")
    clip = config.get("clipThreshold")
    return Multiplier(
        round=int(entry["number"]),
        metric=str(config.get("displayName") or config.get("name")),
        multiplier=float(config["defaultMultiplier"]),
        payout_factor=None if factor is None else float(factor),
        clip=None if clip is None else float(clip),
    )
