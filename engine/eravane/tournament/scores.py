"""Live performance of a model, compared with its backtest, and the payout that a stake would have earned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from eravane.calendar.horizon import SCORE_MARGIN, Horizon
from eravane.core.errors import DataError, RunError
from eravane.core.files import Place, json_able
from eravane.scoring.metrics import Summary, hac_mean, summarise
from eravane.scoring.payout import PayoutRule, rule_of
from eravane.tournament import connect
from eravane.tournament.history import History, RoundScore
from eravane.tournament.receipts import check_model_name
from eravane.tournament.references import BMC, CORR, ReferenceScore, reference_scores, tournament_benchmark
from eravane.tournament.rules import MMC, days_of, kind_of, rules_of
from eravane.tournament.transport import ApiError

if TYPE_CHECKING:
    from eravane.tournament.client import Client

T = TypeVar("T")


@dataclass(frozen=True)
class LiveScore:
    """A live metric of a model.

    Attributes:
        metric: the tournament's name of it.
        days: trading days that it runs over; None where neither its name nor the rounds state that.
        rounds: rounds with a score; `resolved` of them have had their last day.
        summary: over all of them, each with its newest score.
        promised: the same metric, of the same horizon, in the backtest; None without one.
        against: what `promised` is: CORR, MMC, or BMC with the benchmark's name; else why nothing is compared.
        t: (live mean - promised mean) over its standard error, rounds that overlap accounted for.
    """

    metric: str
    days: int | None
    rounds: int
    resolved: int
    summary: Summary
    promised: Summary | None
    against: str
    t: float | None


@dataclass(frozen=True)
class Earned:
    """Earnings of a stake of 1 on every round, each under its own rule.

    Attributes:
        rounds: round, share earned, whether it is final, and the rule's mix, in order.
        total, mean: over all rounds; resolved: over the final ones alone, None without.
    """

    rounds: tuple[tuple[int, float, bool, str], ...]
    total: float | None
    mean: float | None
    resolved: float | None


@dataclass(frozen=True)
class ScoreSheet:
    """Live scores of a model.

    Attributes:
        model: its name.
        scores: one entry per metric.
        earned: what a stake would have earned.
        rule: the rule of the newest round that pays; None where the tournament did not state it.
        notes: facts to know.
        failures: queries that failed, a sentence each; what else arrived is there.
    """

    model: str
    scores: tuple[LiveScore, ...]
    earned: Earned
    rule: PayoutRule | None
    notes: tuple[str, ...]
    failures: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The scores as a JSON-able dictionary, undefined numbers as None."""
        return {name: json_able(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class _Backtest:
    """Scores of a run: its horizon in trading days, and metric -> summary."""

    days: int
    promises: Mapping[str, Summary]


def scores(model: str, run: Place | None = None, *, client: Client | None = None) -> ScoreSheet:
    """Read a model's live scores and the rules of its rounds, and keep them in the run folder.

    A query that fails costs its own part alone; it is named in `failures`.

    Args:
        model: any model of the tournament; no credentials are needed.
        run: run folder whose backtest is put beside them, and whose `live_scores/` keeps them; None shows what the
            tournament lists now.
        client: the tournament's API; None connects.

    Raises:
        ApiError: there is no such model, or nothing at all arrived.
        RunError: the run folder has no metrics.
    """
    check_model_name(model)
    run = None if run is None else Path(run)
    backtest = None if run is None else _backtest(run)
    history = History.read(run, model)
    client, failures = client or connect(), list[str]()

    def attempt(what: str, query: Callable[[Client], T], otherwise: T) -> T:
        try:
            return query(client)
        except ApiError as error:
            failures.append(f"{what}: {error}")
            return otherwise

    listed = attempt("live scores", lambda api: _listed(api, model), None)
    rounds = attempt("rounds", lambda api: api.unresolved_rounds(), None)
    if listed is None and (rounds is None or not history.scores):
        raise ApiError("; ".join(failures))
    stated = client.shaped("rounds", lambda: rules_of(rounds or [], "tournament"))
    days = client.shaped("rounds", lambda: _stated_days(rounds or []))
    history = client.shaped("submissionScores", lambda: history.with_news(listed or [], stated))
    if run is not None:
        history.write(run, model)
    return ScoreSheet(
        model=model,
        scores=tuple(_live_scores(history, days, backtest)),
        earned=_earned(history, days),
        rule=stated[max(stated)] if stated else None,
        notes=history.notes,
        failures=tuple(failures),
    )


def _listed(client: Client, model_name: str) -> list[dict[str, Any]]:
    return client.scores(client.public_model_id(model_name))


def _stated_days(rounds: list[dict[str, Any]]) -> dict[str, int]:
    """Trading days of each metric as the rounds' score configurations state them, for names without a number."""
    configs = [config for entry in rounds for config in entry.get("roundScoreConfigs") or []]
    return {
        str(config.get("displayName") or config.get("name")).lower(): int(config["totalScoreDays"])
        for config in configs
        if config.get("totalScoreDays")
    }


def _days(metric: str, stated: Mapping[str, int]) -> int | None:
    return days_of(metric) or stated.get(metric.lower())


def _live_scores(history: History, stated: Mapping[str, int], backtest: _Backtest | None) -> list[LiveScore]:
    by_metric: dict[str, list[RoundScore]] = {}
    for (metric, _), score in sorted(history.scores.items()):
        by_metric.setdefault(metric, []).append(score)
    return [_live(metric, entries, _days(metric, stated), backtest) for metric, entries in by_metric.items()]


def _live(metric: str, entries: list[RoundScore], days: int | None, backtest: _Backtest | None) -> LiveScore:
    values_E = np.array([entry.value for entry in entries])
    promised, against = (None, "") if backtest is None else _promised(metric, days, backtest)
    t = None
    if promised is not None and days is not None and values_E.size > 1:
        short = hac_mean(values_E - promised.corr_mean, Horizon.of_days(days).overlapping_rounds)
        t = short.t if short.se > 0 else None
    resolved = sum(entry.resolved for entry in entries)
    return LiveScore(metric, days, len(entries), resolved, summarise(values_E), promised, against, t)


def _promised(metric: str, days: int | None, backtest: _Backtest) -> tuple[Summary | None, str]:
    """The backtest's own number for a metric, and what it is; or why there is none."""
    if days is None:
        return None, "not compared: its horizon is not stated"
    if days != backtest.days:
        return None, f"not compared: the backtest is on {backtest.days}-day labels"
    kind = kind_of(metric)
    name = tournament_benchmark(backtest.promises, days) if kind == BMC else kind
    if name is None or name not in backtest.promises:
        return None, f"not compared: the backtest has no {kind}"
    return backtest.promises[name], name


def _earned(history: History, stated: Mapping[str, int]) -> Earned:
    """Earnings of a stake of 1 in every round that has both of its rule's scores."""
    found = []
    for number in sorted({number for _, number in history.scores}):
        rule = history.rules.get(number) or rule_of(number)
        corr, mmc = (_paid_score(history, kind, number, rule.horizon, stated) for kind in (CORR, MMC))
        if corr is None or mmc is None:
            continue
        share = float(rule.paid(corr.value, mmc.value))
        found.append((number, share, corr.resolved and mmc.resolved, rule.formula()))
    shares_E = np.array([share for _, share, _, _ in found])
    final = [share for _, share, resolved, _ in found if resolved]
    if not found:
        return Earned((), None, None, None)
    return Earned(tuple(found), float(shares_E.sum()), float(shares_E.mean()), sum(final) if final else None)


def _paid_score(history: History, kind: str, number: int, days: int, stated: Mapping[str, int]) -> RoundScore | None:
    """A round's score of one definition and horizon; the tournament's own canonical name first."""
    fitting = [
        score
        for (metric, at), score in history.scores.items()
        if at == number and kind_of(metric) == kind and _days(metric, stated) == days
    ]
    return min(fitting, key=lambda score: (not score.metric.startswith("canon"), score.metric), default=None)


def _backtest(run: Path) -> _Backtest:
    """The backtest's value of each metric that it has.

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
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        span = Horizon(int(manifest["lags"]["minimum_score"]) - SCORE_MARGIN)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise RunError(f"{run} has no metrics.json of a finished run; `eravane run` writes it") from None
    references: dict[str, Summary] = {score.metric: score.summary for score in _references(run)}
    return _Backtest(span.days, {**references, CORR: corr})


def _references(run: Path) -> list[ReferenceScore]:
    try:
        return reference_scores(run)
    except DataError:  # without the dataset CORR alone is known
        return []
