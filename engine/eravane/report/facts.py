"""Numbers of a report, computed from the run's tables rather than taken from its summary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import rankdata

from eravane.core.arrays import Floats
from eravane.report.load import RunView
from eravane.scoring.metrics import HacMean, Summary, critical_t, hac_mean, summarise
from eravane.scoring.payout import RULES, PayoutRule

# Standard errors beyond the critical t that give 80 % power (Cohen 1988, normal approximation).
POWER_ERRORS = 0.8416
CORRELATION_ERAS = 40
# Telemetry of a stage, and the rule that combines the parts of an interrupted one.
USAGE = {
    "cpu": "sum",
    "peak_bytes": "max",
    "joules": "sum",
    "gpu_utilisation": "mean",
    "gpu_memory_bytes": "max",
    "gpu_power_watts": "mean",
    "gpu_sm_mhz": "mean",
    "throttled": "first",
}


@dataclass(frozen=True)
class SeriesFacts:
    """One score series over the counted eras: summary, HAC mean, and its paired gain over equal weight."""

    name: str
    summary: Summary
    mean: HacMean
    gain: HacMean | None


def series_facts(view: RunView, name: str) -> SeriesFacts:
    """Summarise one score column from `report_start` on; `gain` is None for equal weight itself or without it."""
    scores = view.counted(name)
    gain = None
    if name != "equal_weight" and "equal_weight" in view.table("scores"):
        gain = hac_mean(difference(scores, view.counted("equal_weight")), view.hac_lag)
    return SeriesFacts(name, summarise(scores), hac_mean(scores, view.hac_lag), gain)


def difference(one: pd.Series[float], other: pd.Series[float]) -> Floats:
    """`one - other` on the eras that both have, float64 [E], in era order."""
    shared = one.index.intersection(other.index).sort_values()
    return np.asarray(one.loc[shared] - other.loc[shared], dtype=np.float64)


def detectable(mean: HacMean) -> float:
    """Smallest true gain that these eras would have shown with 80 % power at the two-sided 5 % level."""
    return (mean.critical + POWER_ERRORS) * mean.se


def judgeable_eras(lag: int) -> int:
    """Fewest eras for a verdict: three times the lag; with fewer the HAC error is too rough."""
    return 3 * lag


def drawdown(scores: pd.Series[float]) -> pd.Series[float]:
    """Fall of the cumulative score from its running maximum, per era, zero or negative."""
    cumulative = scores.cumsum()
    return cumulative - cumulative.cummax()


def weights(view: RunView) -> pd.DataFrame:
    """Weights, eras x models, in zoo order; a model without a weight in an era counts as closed."""
    table = view.table("weights")
    models = [name for name in view.models if name in table]
    return table[models].astype(np.float64).fillna(0.0) if len(table) else pd.DataFrame()


def model_facts(view: RunView) -> pd.DataFrame:
    """The zoo table with its t, share of open eras, mean weight and mean loop CORR of each model beside it."""
    zoo = view.table("zoo").copy()
    if "model_id" not in zoo:
        return pd.DataFrame()
    zoo["model_id"] = zoo["model_id"].astype(str)
    table, scores = weights(view), view.table("scores")
    names = zoo["model_id"]
    zoo["open_share"] = names.map((table > 0).mean() if len(table) else pd.Series(dtype=float))
    zoo["mean_weight"] = names.map(table.mean() if len(table) else pd.Series(dtype=float))
    scored = {name: view.counted(name).mean() for name in names if name in scores}
    zoo["loop_corr"] = names.map(pd.Series(scored, dtype=float))
    if {"corr_se", "n_eras"} <= set(zoo):
        rows = zip(zoo["corr_mean"], zoo["corr_se"], zoo["n_eras"].astype(int), strict=True)
        zoo["corr_t"] = [HacMean(mean, se, n, critical_t(n, view.hac_lag)).t for mean, se, n in rows]
    return zoo


def label_of(view: RunView, model: str) -> tuple[str, str]:
    """Feature set and group of a model, "" where the zoo table lacks it."""
    zoo = view.table("zoo")
    if "model_id" not in zoo:
        return "", ""
    row = zoo[zoo["model_id"].astype(str) == model]
    feature_set, group = (str(row[key].iloc[0]) if key in row and len(row) else "" for key in ("feature_set", "group"))
    return feature_set, group


def compute_saved(view: RunView) -> pd.Series[float]:
    """Share of the pool's trees that the gate left unevaluated, per era; of models where trees are unknown."""
    table, zoo = weights(view), view.table("zoo")
    if not len(table):
        return pd.Series(dtype=np.float64)
    cost = pd.Series(1.0, index=table.columns)
    if {"model_id", "n_trees"} <= set(zoo.columns):
        trees = zoo.set_index(zoo["model_id"].astype(str))["n_trees"].reindex(table.columns)
        if trees.notna().all() and trees.sum() > 0:
            cost = trees.astype(np.float64)
    return 1.0 - (table > 0).mul(cost, axis=1).sum(axis=1) / cost.sum()


def cell_means(view: RunView, column: str) -> pd.DataFrame:
    """Mean of a zoo column per feature group (rows) and feature set (columns)."""
    zoo = view.table("zoo")
    if not {"feature_set", "group", column} <= set(zoo.columns):
        return pd.DataFrame()
    values = pd.to_numeric(zoo[column], errors="coerce")
    keys = [zoo["group"].astype(str), zoo["feature_set"].astype(str)]
    return values.groupby(keys).mean().unstack()


def model_correlation(view: RunView, eras: int = CORRELATION_ERAS) -> tuple[pd.DataFrame, int, str]:
    """Mean per-era rank correlation between base models' predictions.

    Reads at most `eras` evenly spaced eras of `base_predictions.parquet`, else of `oof.parquet`. A model that is
    constant or incomplete in an era is left out of that era.

    Returns:
        models x models, the number of eras it rests on, and the file; empty where neither file can be read.
    """
    for name in ("base_predictions.parquet", "oof.parquet"):
        path = view.path / name
        if not path.is_file():
            continue
        try:
            labels = pq.read_table(path, columns=["era"]).column("era").to_pandas().unique()
            chosen = labels[np.unique(np.linspace(0, len(labels) - 1, eras).round().astype(int))]
            rows = pq.read_table(path, filters=[("era", "in", list(chosen))]).to_pandas()
        except (OSError, ValueError, KeyError, IndexError):
            continue
        models = [model for model in view.models if model in rows] or [
            str(column) for column in rows.columns if column not in ("id", "era")
        ]
        if len(models) > 1 and len(rows):
            return _mean_rank_correlation(rows, models), len(chosen), name
    return pd.DataFrame(), 0, ""


def _mean_rank_correlation(rows: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    total = np.zeros((len(models), len(models)))
    count = np.zeros_like(total)
    for _, era in rows.groupby("era", sort=False):
        values = era[models].to_numpy(dtype=np.float64)
        usable = np.isfinite(values).all(axis=0) & (np.ptp(np.nan_to_num(values), axis=0) > 0)
        if usable.sum() < 2:
            continue
        where = np.ix_(usable, usable)
        total[where] += np.corrcoef(rankdata(values[:, usable], axis=0), rowvar=False)
        count[where] += 1
    with np.errstate(invalid="ignore"):
        return pd.DataFrame(total / np.where(count > 0, count, np.nan), index=models, columns=models)


@dataclass(frozen=True)
class Cost:
    """One timed step of a run.

    Attributes:
        stage: what was done; the parts of a loop era are stages of their own.
        era: era number, None outside the loop.
        seconds: wall-clock time.
        bytes, joules: NaN where they were not measured.
        inside: whether the step ran within another timed one, so that its time must not be added.
    """

    stage: str
    era: int | None
    seconds: float
    bytes: float
    joules: float
    device: str
    inside: bool


def costs(view: RunView) -> list[Cost]:
    """Every timed step of `events.jsonl`.

    Events called `stage` and events of an era add up to the run; other timed events are details within a stage.
    """
    found: list[Cost] = []
    for event in view.events:
        name, label = str(event.get("event", "step")), str(event.get("era", ""))
        era = int(label) if label.isdecimal() else None
        parts = event.get("parts")
        times = parts if isinstance(parts, Mapping) else {str(event.get("stage", name)): event.get("seconds")}
        found += [
            Cost(
                stage=str(stage),
                era=era,
                seconds=_number(seconds),
                bytes=_number(event.get("bytes")),
                joules=_number(event.get("joules")),
                device=str(event.get("device", "")),
                inside=name != "stage" and era is None,
            )
            for stage, seconds in times.items()
            if math.isfinite(_number(seconds))
        ]
    return found


def stage_costs(view: RunView) -> pd.DataFrame:
    """Cost of each stage: steps, seconds, share of the run, median and longest step, peak bytes, joules, device.

    Details within a stage have no share; the most expensive stage comes first.
    """
    timed = pd.DataFrame([vars(cost) for cost in costs(view)])
    if not len(timed):
        return pd.DataFrame()
    grouped = timed.groupby(["inside", "stage"], sort=False)
    table = pd.DataFrame(
        {
            "steps": grouped.size(),
            "seconds": grouped["seconds"].sum(),
            "median": grouped["seconds"].median(),
            "longest": grouped["seconds"].max(),
            "bytes": grouped["bytes"].max(),
            "joules": grouped["joules"].sum(min_count=1),
            "device": grouped["device"].agg(_distinct),
        }
    ).reset_index("inside")
    outer = table["seconds"].where(~table["inside"])
    table["share"] = outer / max(float(outer.sum()), 1e-12)
    return table.sort_values(["inside", "seconds"], ascending=[True, False], kind="stable")


def stage_usage(view: RunView) -> pd.DataFrame:
    """Resources used by each stage: CPU seconds, peak memory, GPU load; columns without data are absent."""
    rows = [{"stage": str(event["stage"]), **_used(event)} for event in view.events if "stage" in event]
    return _together([row for row in rows if len(row) > 1], "stage", USAGE)


def worker_usage(view: RunView) -> pd.DataFrame:
    """Resources used by the tasks of each Dask worker, as `stage_usage`, with `tasks` and their `seconds` first.

    Means are over the time that tasks took.
    """
    events = [event for event in view.events if event.get("event") == "worker"]
    rows = [
        {
            "worker": f"{event.get('worker')} on {event.get('host')}",
            "tasks": 1.0,
            "seconds": _number(event.get("seconds")),
            **_used(event),
        }
        for event in events
    ]
    means = [name for name, rule in USAGE.items() if rule == "mean"]
    for row in rows:
        row |= {name: row[name] * row["seconds"] for name in means if name in row}
    found = _together(rows, "worker", {"tasks": "sum", "seconds": "sum"} | USAGE | dict.fromkeys(means, "sum"))
    for name in set(means) & set(found.columns):
        found[name] /= found["seconds"]
    return found.sort_index()


def _used(event: Mapping[str, object]) -> dict[str, Any]:
    """The columns of `USAGE` in an event."""
    gpu = event.get("gpu")
    facts = {**event, **{f"gpu_{name}": value for name, value in gpu.items()}} if isinstance(gpu, Mapping) else event
    used: dict[str, Any] = {name: _number(facts[name]) for name in USAGE if name in facts}
    throttled = facts.get("gpu_throttled")
    if used and isinstance(throttled, Mapping) and throttled:
        used["throttled"] = ", ".join(map(str, throttled))
    return used


def _together(rows: list[dict[str, Any]], key: str, rules: Mapping[str, str]) -> pd.DataFrame:
    """Rows of the same key combined by the rule of each column."""
    if not rows:
        return pd.DataFrame()
    grouped = pd.DataFrame(rows).groupby(key, sort=False)
    found = {
        name: grouped[name].sum(min_count=1) if rule == "sum" else grouped[name].agg(rule)
        for name, rule in rules.items()
        if any(name in row for row in rows)
    }
    return pd.DataFrame(found)


def _distinct(names: pd.Series[str]) -> str:
    return ", ".join(sorted(set(names) - {""}))


def era_seconds(view: RunView) -> pd.DataFrame:
    """Seconds per era (rows) and stage (columns) of the loop."""
    rows = [(cost.era, cost.stage, cost.seconds) for cost in costs(view) if cost.era is not None]
    table = pd.DataFrame(rows, columns=["era", "stage", "seconds"])
    return table.pivot_table(index="era", columns="stage", values="seconds", aggfunc="sum") if rows else table


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def payout_rule(view: RunView) -> PayoutRule:
    """The payout rule of the run's manifest, else the newest of the table."""
    try:
        return PayoutRule.from_dict(view.fact("payout"))
    except (KeyError, TypeError, ValueError):
        return RULES[-1]


def payout(view: RunView, name: str) -> pd.Series[float]:
    """Payout mix of a series per era, on the counted eras where `references.parquet` has `<series>_mmc`."""
    references = view.table("references")
    column = f"{name}_mmc"
    if column not in references:
        return pd.Series(dtype=np.float64)
    rule, mmc = payout_rule(view), references[column].astype(np.float64).dropna()
    return (rule.corr * view.counted(name) + rule.mmc * mmc).dropna()


@dataclass(frozen=True)
class GateFacts:
    """Gains of the gate over equal weight, in summed CORR of gaussianized ranks.

    Attributes:
        eras: resolved eras so far.
        gate: earned by the gate.
        experts: by name, the present weight and what the expert alone would have earned; the largest weight first.
    """

    eras: int
    gate: float
    experts: tuple[tuple[str, float, float], ...]


def gate_facts(view: RunView) -> GateFacts | None:
    """The newest state of the gate in `events.jsonl`; None before it decides or where the events lack it."""
    for event in reversed(view.events):
        state = event.get("gate")
        if not isinstance(state, Mapping):
            continue
        earned, hedge = state.get("earned"), state.get("hedge")
        if not (
            isinstance(earned, Mapping) and isinstance(hedge, Mapping) and math.isfinite(_number(earned.get("gate")))
        ):
            continue
        experts = [(str(name), _number(weight), _number(earned.get(name))) for name, weight in hedge.items()]
        experts.sort(key=lambda expert: -expert[1])
        resolved = state.get("resolved")
        return GateFacts(resolved if isinstance(resolved, int) else 0, _number(earned.get("gate")), tuple(experts))
    return None
