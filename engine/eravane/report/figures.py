"""Plots over eras as plotly.js figures; colours are CSS variables, which the page resolves by theme."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from eravane.report.facts import compute_saved, drawdown, era_seconds, payout, weights
from eravane.report.load import RunView

Trace = dict[str, Any]

COLOURS = {"ensemble": "var(--s1)", "equal_weight": "var(--s2)", "best_single": "var(--s3)"}
FURTHER = ("var(--s4)", "var(--s5)", "var(--s6)", "var(--s7)", "var(--s8)")
CYCLE = ("var(--s1)", "var(--s3)", "var(--s4)", "var(--s5)", "var(--s6)", "var(--s7)", "var(--s8)", "var(--s2)")
DIGITS = 5


@dataclass(frozen=True)
class View:
    """One view of a figure: plotly traces, and the layout beyond the page's defaults."""

    label: str
    data: list[Trace]
    layout: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """A titled plot; `note` explains how to read it."""

    name: str
    title: str
    note: str
    views: list[View]
    height: int = 340

    def as_dict(self) -> dict[str, object]:
        """The figure as JSON-able values for the page's script."""
        views = [{"label": view.label, "data": view.data, "layout": view.layout} for view in self.views]
        return {"name": self.name, "height": self.height, "views": views}


def numbers(values: ArrayLike) -> list[Any]:
    """Values rounded to five significant digits for a compact page; NaN and infinities become None."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > 1:
        return [numbers(row) for row in array]
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in array.tolist()]


def eras_of(table: pd.DataFrame | pd.Series[Any]) -> list[int]:
    """The integer eras of a table by era."""
    return [int(era) for era in table.index]


def title_of(name: str) -> str:
    """A column name as people read it: `equal_weight` -> "Equal weight"."""
    text = name.replace("_", " ").strip()
    return text[:1].upper() + text[1:]


def colours_of(view: RunView) -> dict[str, str]:
    """One colour per score series, the same in every plot."""
    further = [name for name in view.series if name not in COLOURS]
    return COLOURS | {name: FURTHER[position % len(FURTHER)] for position, name in enumerate(further)}


def line(name: str, x: list[int], y: list[Any], colour: str, hover: str, **style: Any) -> Trace:
    """A line over eras whose tooltip shows `hover` for the value."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": {"color": colour, "width": 2} | style.pop("line", {}),
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    } | style


def _series_lines(view: RunView, transform: Callable[[pd.Series[float]], ArrayLike], hover: str) -> list[Trace]:
    colours, traces = colours_of(view), []
    for name in view.series:
        scores = view.counted(name)
        if len(scores):
            on_top = name == "ensemble"
            style: Trace = {"line": {"width": 3 if on_top else 1.75}, "zorder": int(on_top)}
            values = numbers(transform(scores))
            traces.append(line(title_of(name), eras_of(scores), values, colours[name], hover, **style))
    return traces


def _axes(y_title: str, **more: object) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": "era"}, "tickformat": "04d", "hoverformat": "04d"},
        "yaxis": {"title": {"text": y_title}},
        "hovermode": "x unified",
    } | more


def cumulative_figure(view: RunView) -> Figure | None:
    """Cumulative CORR of every series, and the ensemble's cumulative gain over each baseline."""
    lines = _series_lines(view, lambda scores: scores.cumsum(), "%{y:.4f}")
    if not lines:
        return None
    views = [View("Cumulative", lines, _axes("cumulative CORR")), View("Gain", _gains(view), _axes("cumulative gain"))]
    paid = [
        line(title_of(name), eras_of(mix), numbers(mix.cumsum()), colours_of(view)[name], "%{y:.4f}")
        for name in view.series
        if len(mix := payout(view, name))
    ]
    if paid:
        views.append(View("Payout mix", paid, _axes("cumulative payout score")))
    views.append(View("By era", _by_era(view), _axes("CORR")))
    note = "Sum of per-era CORR from the first counted era on. Gain: ensemble less each baseline, era by era."
    return Figure("cumulative", "Cumulative CORR", note, [item for item in views if item.data], 420)


def _gains(view: RunView) -> list[Trace]:
    ensemble, traces = view.counted("ensemble"), []
    for name in view.series:
        gain = (ensemble - view.counted(name)).dropna()
        if name != "ensemble" and len(gain):
            label = f"over {title_of(name).lower()}"
            traces.append(line(label, eras_of(gain), numbers(gain.cumsum()), colours_of(view)[name], "%{y:+.4f}"))
    return traces


def _by_era(view: RunView) -> list[Trace]:
    scores = view.counted("ensemble")
    if not len(scores):
        return []
    smooth = scores.rolling(20, min_periods=5).mean()
    bars = {
        "type": "bar",
        "name": "Ensemble",
        "x": eras_of(scores),
        "y": numbers(scores),
        "marker": {"color": ["var(--good)" if value >= 0 else "var(--bad)" for value in scores], "opacity": 0.55},
        "hovertemplate": "%{y:.4f}<extra>CORR</extra>",
    }
    return [bars, line("Mean of 20 eras", eras_of(scores), numbers(smooth), "var(--s1)", "%{y:.4f}")]


def drawdown_figure(view: RunView) -> Figure | None:
    """Fall of cumulative CORR from its running maximum."""
    lines = _series_lines(view, drawdown, "%{y:.4f}")
    if not lines:
        return None
    lines[0] |= {"fill": "tozeroy", "fillcolor": "var(--s1-soft)"}
    note = "Distance of cumulative CORR below its running maximum."
    return Figure("drawdown", "Drawdown", note, [View("", lines, _axes("CORR below peak"))], 260)


def gate_figure(view: RunView) -> Figure | None:
    """Open gates and the share of trees left unevaluated, over eras."""
    table = weights(view)
    if not len(table):
        return None
    active, saved = (table > 0).sum(axis=1), compute_saved(view)
    open_gates = line(
        "Open models",
        eras_of(table),
        numbers(active),
        "var(--s1)",
        "%{y:.0f} of " + str(table.shape[1]),
        fill="tozeroy",
        fillcolor="var(--s1-soft)",
        line={"shape": "hv"},
    )
    spared = line(
        "Trees not evaluated", eras_of(saved), numbers(saved), "var(--s4)", "%{y:.0%}", yaxis="y2", line={"shape": "hv"}
    )
    layout = _axes("open models") | {
        "yaxis": {"title": {"text": "open models"}, "range": [0, table.shape[1] * 1.05]},
        "yaxis2": {
            "title": {"text": "trees not evaluated"},
            "overlaying": "y",
            "side": "right",
            "range": [0, 1.05],
            "tickmode": "linear",
            "dtick": 0.25,
            "tickformat": ".0%",
            "showgrid": False,
        },
        "shapes": start_marks(view),
    }
    note = "Base models that ran in each era, and the share of the pool's trees that was not evaluated."
    return Figure("gate", "Gate openness and compute saved", note, [View("", [open_gates, spared], layout)], 280)


def start_marks(view: RunView) -> list[dict[str, Any]]:
    """A dotted line at the first counted era, where eras before it are shown."""
    if not (weights(view).index < view.report_start).any():
        return []
    return [
        {
            "type": "line",
            "x0": view.report_start,
            "x1": view.report_start,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": "var(--ink-2)", "width": 1, "dash": "dot"},
        }
    ]


def missing_figure(view: RunView) -> Figure | None:
    """Features that are missing for a whole era, over eras."""
    table = view.table("missing")
    if "n_missing" not in table or not len(table):
        return None
    bars = line(
        "Missing features",
        eras_of(table),
        numbers(table["n_missing"]),
        "var(--s3)",
        "%{y:.0f}",
        fill="tozeroy",
        fillcolor="var(--s3-soft)",
        line={"shape": "hv"},
    )
    note = "Features without information in an era (every row at level 2, or NaN)."
    return Figure("missing", "Missing features over time", note, [View("", [bars], _axes("features"))], 240)


def time_figure(view: RunView) -> Figure | None:
    """Seconds per era, by stage: flat if updates cost the same at era 1,000 as at era 10."""
    table = era_seconds(view)
    if len(table) < 2:
        return None
    largest = table.sum().sort_values(ascending=False).index[: len(CYCLE)]
    bars = [
        {
            "type": "bar",
            "name": title_of(str(stage)),
            "x": eras_of(table),
            "y": numbers(table[stage]),
            "marker": {"color": CYCLE[position]},
            "hovertemplate": "%{y:.3f} s<extra>" + title_of(str(stage)) + "</extra>",
        }
        for position, stage in enumerate(largest)
    ]
    layout = _axes("seconds", barmode="stack", bargap=0)
    usual = 4 * float(table.sum(axis=1).median())
    close = layout | {"yaxis": layout["yaxis"] | {"range": [0, usual]}}
    note = "Time per era, by stage. Level bars mean that the cost does not grow with history."
    return Figure("time", "Seconds per era", note, [View("All", bars, layout), View("Close up", bars, close)], 280)


def telemetry_figure(view: RunView) -> Figure | None:
    """GPU utilisation, memory and power sampled during the run; one view per column."""
    table = view.table("telemetry")
    known = {
        "utilisation": ("GPU utilisation", "%"),
        "memory_bytes": ("GPU memory", "B"),
        "power_watts": ("Power", "W"),
        "rss_bytes": ("Host memory", "B"),
    }
    seconds = table.get("seconds")
    views = []
    for column, (label, unit) in known.items():
        if column not in table or seconds is None or not table[column].notna().any():
            continue
        trace = line(label, numbers(seconds), numbers(table[column]), "var(--s1)", "%{y:.4s}" + unit)
        scale = {"title": {"text": label}, "tickformat": "~s", "ticksuffix": unit}
        axes = {"xaxis": {"title": {"text": "seconds"}}, "yaxis": scale}
        views.append(View(label, [trace], axes))
    if not views:
        return None
    return Figure("telemetry", "Telemetry", "Sampled during the run.", views, 280)
