"""The report's sentences and tables: verdict, headline, series, zoo, cost, and the facts of the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import SupportsFloat

import numpy as np
import pandas as pd

from eravane.calendar.eras import era_label
from eravane.core.units import duration, format_size
from eravane.report.alerts import FEW_ERAS, Alert
from eravane.report.blocks import Card, Cell, Interval, Table, Tile, interval
from eravane.report.facts import (
    compute_saved,
    detectable,
    difference,
    gate_facts,
    judgeable_eras,
    model_facts,
    payout,
    payout_rule,
    series_facts,
    stage_costs,
    stage_usage,
    weights,
    worker_usage,
)
from eravane.report.figures import title_of
from eravane.report.formats import DASH, bounds, number
from eravane.report.load import CONTRACT, RunView
from eravane.scoring.metrics import HacMean, hac_mean

SURE = 3.0
LIKELY = 2.0
VERDICTS = (
    (SURE, "good", "Clearly better than equal weight"),
    (LIKELY, "good", "Probably better than equal weight"),
    (-LIKELY, "even", "No proven difference to equal weight"),
)
JOULES_PER_WATT_HOUR = 3600


@dataclass(frozen=True)
class Judgement:
    """Whether the run is good: a tone (good, even, bad), the verdict, and how sure it is."""

    tone: str
    words: str
    detail: str


@dataclass(frozen=True)
class Gain:
    """The ensemble's paired gain over one baseline."""

    name: str
    interval: Interval | None
    mean: str
    t: str


def chips(view: RunView) -> list[tuple[str, str]]:
    """The facts that name a run: target with its horizon and lags, payout rule, eras, device, seed, version, time."""
    scores = view.table("scores")
    span = f"{era_label(int(scores.index[0]))} {DASH} {era_label(int(scores.index[-1]))}" if len(scores) else ""
    facts = (
        ("target", view.target_sentence),
        ("payout", payout_rule(view).sentence() if view.fact("payout") else ""),
        ("loop eras", span),
        ("device", view.fact("device", default="")),
        ("seed", view.fact("seed", default="")),
        ("eravane", view.fact("versions.eravane", default="")),
        ("last step", _last_step(view)),
    )
    return [(name, str(value)) for name, value in facts if str(value) and not isinstance(value, dict | list)]


def _last_step(view: RunView) -> str:
    times = [event["time"] for event in view.events if isinstance(event.get("time"), int | float)]
    return datetime.fromtimestamp(max(times), tz=UTC).strftime("%Y-%m-%d %H:%M UTC") if times else ""


def verdict(view: RunView, found: Sequence[Alert]) -> Judgement:
    """One sentence on whether the run is good, and one on how sure that is."""
    stop = next((alert for alert in found if alert.level == "stop"), None)
    if stop is not None:
        words = f"Not valid: {stop.title[:1].lower()}{stop.title[1:]}"
        return Judgement("bad", words, "Fix this before reading any number below.")
    ensemble = series_facts(view, "ensemble")
    if not ensemble.summary.n_eras:
        return Judgement("even", "No scores yet", "No counted era has a score so far; what exists is shown below.")
    gain = ensemble.gain
    if gain is None or gain.n_eras < judgeable_eras(view.hac_lag) or not gain.se > 0:
        count = gain.n_eras if gain else 0
        least = f"a verdict takes {judgeable_eras(view.hac_lag)} and a gate that differs"
        detail = f"{count} eras compare the ensemble with equal weight; {least}."
        return Judgement("even", "Too early to judge", detail)
    detail = (
        f"{number(gain.mean, '+.4f')} CORR per era, HAC t {number(gain.t, '.1f')}. "
        f"The smallest gain that {gain.n_eras} eras could reliably have shown is {number(detectable(gain))}."
    )
    if not ensemble.mean.t >= LIKELY:
        detail += f" The ensemble's own CORR is not proven to be above zero (t {number(ensemble.mean.t, '.1f')})."
    for bound, tone, words in VERDICTS:
        if gain.t >= bound and (bound != SURE or gain.n_eras >= FEW_ERAS):
            return Judgement(tone, words, detail)
    return Judgement("bad", "Worse than equal weight", detail)


def tiles(view: RunView) -> list[Tile]:
    """The main numbers; none before the first counted score."""
    ensemble = series_facts(view, "ensemble")
    if not ensemble.summary.n_eras:
        return []
    summary, counted = ensemble.summary, view.counted("ensemble")
    span = f"eras {era_label(int(counted.index[0]))} {DASH} {era_label(int(counted.index[-1]))}"
    found = [
        Tile(
            "CORR",
            number(summary.corr_mean),
            f"± {number(ensemble.mean.critical * ensemble.mean.se)} · t {number(ensemble.mean.t, '.1f')}",
        ),
        Tile("Sharpe", number(summary.sharpe, ".2f"), f"std {number(summary.corr_std)}"),
        Tile("Max drawdown", number(summary.max_drawdown), "of cumulative CORR"),
        Tile("Eras", str(summary.n_eras), span),
    ]
    opened, saved = weights(view), compute_saved(view)
    opened = opened[opened.index >= view.report_start]
    if len(opened):
        mean_open = (opened > 0).sum(axis=1).mean()
        idle = f"{saved.loc[opened.index].mean():.0%} of trees not evaluated"
        found.append(Tile("Open models", f"{mean_open:.1f} of {opened.shape[1]}", idle))
    if len(mix := payout(view, "ensemble")):
        paid, rule = hac_mean(mix.to_numpy(), view.hac_lag), payout_rule(view)
        formula = f"{rule.formula()}, {paid.n_eras} eras, t {number(paid.t, '.1f')}"
        found.append(Tile("Payout mix", number(paid.mean), formula))
    return found


def gains(view: RunView) -> list[Gain]:
    """The ensemble's gain over each baseline with its 95 % interval; none before the first counted score."""
    ensemble = view.counted("ensemble")
    if not len(ensemble):
        return []
    rows = [
        (title_of(name), hac_mean(difference(ensemble, view.counted(name)), view.hac_lag))
        for name in view.series
        if name != "ensemble" and len(view.counted(name))
    ]
    edges = [0.0, *(edge for _, gain in rows for edge in bounds(gain))]
    return [
        Gain(name, interval(gain, min(edges), max(edges)), number(gain.mean, "+.4f"), number(gain.t, ".1f"))
        for name, gain in rows
    ]


def series(view: RunView) -> list[Card]:
    """Every score series side by side."""
    heads = ["Series", "CORR", "± 95 %", "HAC t", "Std", "Sharpe", "Max drawdown", "Over equal weight", "t", "Eras"]
    rows = []
    for name in view.series:
        facts = series_facts(view, name)
        if not facts.summary.n_eras:
            continue
        gain = facts.gain or HacMean(math.nan, math.nan, 0)
        values = (
            (facts.summary.corr_mean, ".4f"),
            (facts.mean.critical * facts.mean.se, ".4f"),
            (facts.mean.t, ".1f"),
            (facts.summary.corr_std, ".4f"),
            (facts.summary.sharpe, ".2f"),
            (facts.summary.max_drawdown, ".4f"),
            (gain.mean, "+.4f"),
            (gain.t, ".1f"),
            (facts.summary.n_eras, ".0f"),
        )
        rows.append([Cell.of(title_of(name)), *(Cell.of(value, form) for value, form in values)])
    return [Card("Side by side", table=Table("series-table", heads, rows))] if rows else []


def gate(view: RunView) -> list[Card]:
    """Gains of the gate and of its experts so far."""
    found = gate_facts(view)
    if found is None or not found.eras or not found.experts:
        return []
    best = max(found.experts, key=lambda expert: expert[2] if math.isfinite(expert[2]) else -math.inf)
    note = (
        f"{number(found.gate, '+.4f')} CORR over equal weight, summed over the judged eras of {found.eras} resolved "
        f"ones. Alone, {title_of(best[0]).lower()} would have earned most: {number(best[2], '+.4f')}."
    )
    rows = [
        [Cell.of(title_of(name)), Cell.of(weight, ".1%"), Cell.of(earned, "+.4f")]
        for name, weight, earned in found.experts
    ]
    return [Card("What the gate has earned", note, Table("gate-table", ("Expert", "Weight now", "Earned alone"), rows))]


ZOO_COLUMNS = (
    ("feature_set", "Set", ""),
    ("group", "Group", ""),
    ("target", "Target", ""),
    ("n_features", "Features", ",.0f"),
    ("n_trees", "Trees", ",.0f"),
    ("corr_mean", "CORR", ".4f"),
    ("corr_t", "HAC t", ".1f"),
    ("corr_std", "Std", ".4f"),
    ("sharpe", "Sharpe", ".2f"),
    ("max_drawdown", "Drawdown", ".4f"),
    ("loop_corr", "Loop CORR", ".4f"),
    ("mean_weight", "Weight", ".1%"),
    ("open_share", "Open", ".0%"),
    ("seconds", "Seconds", ".1f"),
    ("reason", "Why", ""),
)


def zoo(view: RunView) -> list[Card]:
    """Every base model, sortable: out-of-fold scores, use in the loop, and why it was kept or dropped."""
    models = model_facts(view)
    if not len(models):
        return []
    columns = [
        column
        for column in ZOO_COLUMNS
        if column[0] in models and models[column[0]].notna().any() and (column[2] or models[column[0]].nunique() > 1)
    ]
    order = [key for key in ("selected", "corr_mean") if key in models]
    models = models.sort_values(order, ascending=False, kind="stable") if order else models
    rows = []
    for _, model in models.iterrows():
        cells = [Cell.of(model["model_id"]), *([_status(model)] if "selected" in models else [])]
        for key, _, form in columns:
            value = pd.to_numeric(model[key], errors="coerce") if form else model[key]
            cells.append(Cell.of(float(value) if form else value, form))
        rows.append(cells)
    heads = ["Model", *(["Status"] if "selected" in models else []), *(title for _, title, _ in columns)]
    count = int(models["selected"].astype(bool).sum()) if "selected" in models else len(models)
    note = f"{count} of {len(models)} models selected. CORR to drawdown are out of fold."
    return [Card("Zoo", note, Table("zoo-table", heads, rows))]


def _status(model: pd.Series[object]) -> Cell:
    return Cell("kept", "kept", "tag on") if model["selected"] else Cell("dropped", "dropped", "tag off")


def costs(view: RunView) -> list[Card]:
    """Time, memory and energy per stage."""
    found = stage_costs(view)
    if not len(found):
        return []
    measured = {key: bool(found[key].notna().any()) for key in ("bytes", "joules")}
    heads = ["Stage", "Steps", "Total", "Share", "Median step", "Longest step", "Memory", "Energy, Wh", "Device"]
    shown = [True] * 6 + [measured["bytes"], measured["joules"], True]
    rows = []
    for stage, cost in found.iterrows():
        times = {key: _measured(duration, cost[key]) for key in ("seconds", "median", "longest")}
        cells = [
            Cell.of(title_of(str(stage)) + (" (inside)" if cost["inside"] else "")),
            Cell.of(float(cost["steps"]), ",.0f"),
            times["seconds"],
            _share(float(cost["share"])),
            times["median"],
            times["longest"],
            _measured(format_size, cost["bytes"]),
            Cell.of(float(cost["joules"]) / JOULES_PER_WATT_HOUR, ".2f"),
            Cell.of(cost["device"] or DASH),
        ]
        rows.append([cell for cell, show in zip(cells, shown, strict=True) if show])
    outer = found[~found["inside"]]
    peak = view.fact("peak_memory_bytes")
    memory = f", {format_size(float(peak))} of memory at the peak" if isinstance(peak, int | float) else ""
    note = f"{duration(float(outer['seconds'].sum()))} in timed stages{memory}."
    if found["inside"].any():
        note += " Rows marked as inside are parts of a stage, summed over threads."
    heads = [head for head, show in zip(heads, shown, strict=True) if show]
    return [Card("By stage", note, Table("cost-table", heads, rows)), *_usage(view)]


USAGE_COLUMNS = (
    ("tasks", "Tasks", ",.0f"),
    ("seconds", "Busy", ""),
    ("cpu", "CPU time", ""),
    ("peak_bytes", "Memory", ""),
    ("joules", "Energy, Wh", ".2f"),
    ("gpu_utilisation", "GPU busy, %", ".0f"),
    ("gpu_memory_bytes", "GPU memory", ""),
    ("gpu_power_watts", "Power, W", ".0f"),
    ("gpu_sm_mhz", "Clock, MHz", ".0f"),
    ("throttled", "Throttled by", ""),
)


def _usage(view: RunView) -> list[Card]:
    note = "CPU time is that of all threads; memory is the sampled peak that no file could give back."
    stages, workers = stage_usage(view), worker_usage(view)
    stages.index = stages.index.map(lambda stage: title_of(str(stage)))
    apart = "Sampled by the workers of the Dask cluster while tasks ran; the stages above are this process alone."
    used = (("Used", note, "Stage", stages), ("Used by workers", apart, "Worker", workers))
    return [_usage_card(*card) for card in used if len(card[3])]


def _usage_card(title: str, note: str, key: str, used: pd.DataFrame) -> Card:
    columns = [column for column in USAGE_COLUMNS if column[0] in used]
    rows = []
    for label, facts in used.iterrows():
        cells = [Cell.of(str(label))]
        for name, _, form in columns:
            value = facts[name]
            if name == "throttled":
                cells.append(Cell.of(value if isinstance(value, str) else DASH))
            elif name.endswith("bytes"):
                cells.append(_measured(format_size, value))
            elif name in ("cpu", "seconds"):
                cells.append(_measured(duration, value))
            else:
                scale = JOULES_PER_WATT_HOUR if name == "joules" else 1
                cells.append(Cell.of(float(value) / scale, form))
        rows.append(cells)
    heads = [key, *(name for _, name, _ in columns)]
    return Card(title, note, Table(f"usage-{key.lower()}-table", heads, rows))


def _measured(unit: Callable[[float], str], value: SupportsFloat) -> Cell:
    """A size or duration; a dash where it is not known."""
    measured = float(value)
    return Cell(unit(measured) if math.isfinite(measured) else DASH, measured)


def _share(share: float) -> Cell:
    return Cell(DASH, share) if math.isnan(share) else Cell(f"{share:.0%}", share, "share")


def about(view: RunView) -> list[Card]:
    """Notes, manifest, files of the contract and the resolved configuration."""
    listed = {key: value for key, value in view.manifest.items() if key not in ("warnings", "notes")}
    peak = listed.pop("peak_memory_bytes", None)
    facts = {title_of(key): _fact(value) for key, value in listed.items()}
    if isinstance(peak, int | float):
        facts["Peak memory"] = format_size(float(peak))
    config = view.path / "run.toml"
    content = config.read_text(encoding="utf-8", errors="replace") if config.is_file() else ""
    notes = [str(note) for note in view.fact("notes", default=()) or ()]
    return [
        *([Card("Notes", items=notes)] if notes else []),
        *([Card("Manifest", facts=facts)] if facts else []),
        Card("Files", table=Table("file-table", ("File", "What", "Size", "State"), _files(view))),
        *([Card("Configuration", folded=content)] if content else []),
    ]


def _files(view: RunView) -> list[list[Cell]]:
    rows = []
    for name, what in CONTRACT.items():
        state = "missing" if name in view.missing else "damaged" if name in view.damaged else "there"
        path = view.path / name
        weight = float(path.stat().st_size) if path.is_file() else np.nan
        tag = Cell(state, state, "tag on" if state == "there" else "tag off")
        rows.append([Cell.of(name), Cell.of(what), _measured(format_size, weight), tag])
    return rows


def _fact(value: object) -> object:
    if isinstance(value, dict):
        return {str(key).replace("_", " "): _fact(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return ", ".join(map(str, value)) or DASH
    return str(value)
