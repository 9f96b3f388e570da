"""Plots other than time series: heat maps of weights, cells and correlations, the regime map, exposures."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from eravane.calendar.eras import era_label
from eravane.report.facts import cell_means, label_of, model_correlation, weights
from eravane.report.figures import CYCLE, Figure, Trace, View, eras_of, numbers, start_marks, title_of
from eravane.report.load import RunView

SEQUENTIAL = [[0, "var(--heat-0)"], [0.25, "var(--heat-1)"], [0.6, "var(--heat-2)"], [1, "var(--heat-3)"]]
DIVERGING = [[0, "var(--low)"], [0.5, "var(--mid)"], [1, "var(--high)"]]
# Limits that keep the page small: cells of a weights heat map, models in a correlation map, bars of exposure.
MOST_CELLS = 120_000
MOST_MODELS = 80
MOST_BARS = 40


def heat(z: pd.DataFrame, hover: str, *, least: float = 0.0, **more: object) -> Trace:
    """A heat map of a table, its index as y and its columns as x.

    Values of one sign get a sequential scale from `least`, values of both signs a diverging one centred on 0.
    """
    values = z.to_numpy(dtype=np.float64)
    known = values[np.isfinite(values)]
    diverging = bool((known < 0).any())
    reach = float(np.abs(known).max()) if known.size else 1.0
    bounds = {"zmin": -reach, "zmax": reach} if diverging else {"zmin": least, "zmax": reach}
    return (
        {
            "type": "heatmap",
            "z": numbers(values),
            "x": [str(name) for name in z.columns],
            "y": [str(name) for name in z.index],
            "colorscale": DIVERGING if diverging else SEQUENTIAL,
            "hovertemplate": hover + "<extra></extra>",
            "hoverongaps": False,
            "xgap": 1,
            "ygap": 1,
            "colorbar": {"thickness": 8, "outlinewidth": 0, "len": 0.9, "tickfont": {"size": 10}},
        }
        | bounds
        | more
    )


def short_names(full: Iterable[object]) -> list[str]:
    """Names without their common endings: `small-wisdom-t20`, `all-luck-t20` lose the `-t20`."""
    names = [re.split(r"(?=[^0-9A-Za-z])", str(name)) for name in full]
    while len(names) > 1 and len({parts[-1] for parts in names}) == 1 and all(len(parts) > 1 for parts in names):
        names = [parts[:-1] for parts in names]
    return ["".join(parts) for parts in names]


def weights_figure(view: RunView) -> Figure | None:
    """Weights over eras by base model, feature group, feature set."""
    table = weights(view)
    if not len(table) or not table.shape[1]:
        return None
    labels = {name: label_of(view, name) for name in table.columns}
    views = [_weights_view(view, "By model", _thin(table), labels)]
    for position, label in ((1, "By group"), (0, "By set")):
        groups = [labels[name][position] or "unknown" for name in table.columns]
        summed = table.T.groupby(groups).sum().T
        if summed.shape[1] > 1:
            views.append(_weights_view(view, label, _thin(summed), {}))
    note = "Share of the ensemble that each base model had in each era; blank where its gate was closed."
    rows = max(len(item.data[0]["y"]) for item in views)
    return Figure("weights", "Weights over time", note, views, min(150 + 18 * rows, 900))


def _thin(table: pd.DataFrame) -> pd.DataFrame:
    step = -(-table.size // MOST_CELLS)
    if step <= 1:
        return table
    blocks = np.arange(len(table)) // step
    return table.groupby(blocks).mean().set_axis(table.index[::step], axis=0)


def _weights_view(view: RunView, label: str, table: pd.DataFrame, labels: dict[str, tuple[str, str]]) -> View:
    eras = eras_of(table)
    shown = table.where(table > 0)
    detail = [" / ".join(filter(None, labels.get(str(name), ("", "")))) for name in table.columns]
    trace = heat(
        shown.T,
        "era %{x:04d}<br>%{y}<br>%{customdata}<br><b>%{z:.1%}</b>",
        x=eras,
        y=short_names(table.columns),
        customdata=[[text] * len(eras) for text in detail],
        xgap=0,
    )
    if not any(detail):
        trace["hovertemplate"] = "era %{x:04d}<br>%{y}<br><b>%{z:.1%}</b><extra></extra>"
        del trace["customdata"]
    trace["colorbar"] |= {"tickformat": ".0%"}
    layout = {
        "xaxis": {"title": {"text": "era"}, "tickformat": "04d"},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "shapes": start_marks(view),
    }
    return View(label, [trace], layout)


def live_figure(view: RunView) -> Figure | None:
    """Weights of the open models in the live round."""
    stated = view.live.get("weights")
    known = {str(name): float(value) for name, value in stated.items()} if isinstance(stated, Mapping) else {}
    shown = pd.Series(known, dtype=np.float64).loc[lambda weight: weight > 0].sort_values()
    if not len(shown):
        return None
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": short_names(shown.index),
        "x": numbers(shown),
        "marker": {"color": "var(--s1)"},
        "hovertemplate": "%{y}<br><b>%{x:.1%}</b><extra></extra>",
    }
    layout = {"xaxis": {"tickformat": ".0%", "title": {"text": "weight"}}, "yaxis": {"type": "category"}}
    note = f"Base models that make up the live predictions, {len(shown)} of {len(known)}."
    return Figure("live", "Live round", note, [View("", [bars], layout)], min(110 + 22 * len(shown), 760))


def cells_figure(view: RunView) -> Figure | None:
    """Mean CORR and Sharpe of the zoo by feature group and feature set."""
    views = []
    for column, label, form in (("corr_mean", "CORR", ".4f"), ("sharpe", "Sharpe", ".2f")):
        table = cell_means(view, column)
        if not table.size or not np.isfinite(table.to_numpy()).any():
            continue
        order = table.mean(axis=1).sort_values(ascending=False).index
        sets = [name for name in view.table("zoo")["feature_set"].astype(str).unique() if name in table]
        hover = "%{x} / %{y}<br>" + label + " <b>%{z:" + form + "}</b>"
        trace = heat(table.loc[order, sets], hover, texttemplate="%{z:" + form + "}")
        layout = {"yaxis": {"autorange": "reversed", "type": "category"}, "xaxis": {"type": "category"}}
        views.append(View(label, [trace], layout))
    if not views:
        return None
    rows = len(views[0].data[0]["y"])
    note = "Out-of-fold means of the models in each cell, best group first."
    return Figure("cells", "Feature set x group", note, views, min(140 + 26 * rows, 700))


def correlation_figure(view: RunView) -> Figure | None:
    """Rank correlation between base models' predictions."""
    table, eras, source = model_correlation(view)
    if table.shape[0] < 2:
        return None
    cut = table.iloc[:MOST_MODELS, :MOST_MODELS].mask(np.eye(min(len(table), MOST_MODELS), dtype=bool))
    names, known = short_names(cut.columns), cut.to_numpy()[np.isfinite(cut.to_numpy())]
    least = float(known.min()) if known.size else 0.0
    trace = heat(cut, "%{y}<br>%{x}<br><b>%{z:.3f}</b>", least=least, x=names, y=names)
    axis = {"type": "category", "showticklabels": cut.shape[0] <= 30}
    layout = {"xaxis": axis | {"tickangle": -60}, "yaxis": axis | {"autorange": "reversed"}}
    left_out = f" The first {MOST_MODELS} of {table.shape[0]} models." if table.shape[0] > MOST_MODELS else ""
    note = f"Mean per-era rank correlation of predictions over {eras} evenly spaced eras of {source}.{left_out}"
    return Figure("correlation", "Correlation between models", note, [View("", [trace], layout)], 520)


def regimes_figure(view: RunView) -> Figure | None:
    """Prototypes as a map with their eras, as a calendar, and by the models each one uses."""
    table = view.table("prototypes")
    if not {"prototype", "x", "y"} <= set(table.columns) or not len(table):
        return None
    names = {kind: f"Regime {kind}" for kind in sorted(table["prototype"].unique().tolist())}
    points, calendar = [], []
    for position, (kind, name) in enumerate(names.items()):
        part = table[table["prototype"] == kind]
        trace = {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "text": [era_label(era) for era in eras_of(part)],
            "hovertemplate": "era %{text}<extra>" + name + "</extra>",
            "marker": {"color": CYCLE[position % len(CYCLE)], "size": 9, "opacity": 0.8},
        }
        points.append(trace | {"x": numbers(part["x"]), "y": numbers(part["y"])})
        calendar.append(trace | {"x": eras_of(part), "y": [name] * len(part)})
    bare = {"showticklabels": False, "zeroline": False, "showgrid": False}
    order = {"type": "category", "categoryarray": list(names.values()), "autorange": "reversed"}
    by_era = {"xaxis": {"title": {"text": "era"}, "tickformat": "04d"}, "yaxis": order, "hovermode": "closest"}
    views = [
        View("Map", points, {"xaxis": bare, "yaxis": bare, "hovermode": "closest"}),
        View("Calendar", calendar, by_era),
        *_models_of_regimes(view, table["prototype"].map(names)),
    ]
    note = "Eras that are close rewarded the same base models. Drawn with hindsight: the scores of all eras are used."
    return Figure("regimes", "Regimes", note, views, 400)


def _models_of_regimes(view: RunView, regime: pd.Series[str]) -> list[View]:
    used = weights(view).join(regime.rename("regime"), how="inner")
    if not len(used):
        return []
    mean = used.groupby("regime").mean()
    trace = heat(mean.T, "%{y}<br>%{x}<br>mean weight <b>%{z:.1%}</b>", y=short_names(mean.columns))
    trace["colorbar"] |= {"tickformat": ".0%"}
    return [View("Models used", [trace], {"yaxis": {"type": "category", "autorange": "reversed"}})]


def exposure_figure(view: RunView) -> Figure | None:
    """Correlation of the ensemble with features, mean and largest absolute value per feature group or set."""
    table = view.table("exposure")
    by = next((name for name in ("group", "feature_set", "feature") if name in table), None)
    if by is None or not {"mean", "max"} <= set(table.columns) or not len(table):
        return None
    top = table.assign(reach=table["max"].abs()).nlargest(MOST_BARS, "reach").iloc[::-1]
    names = [str(name) for name in top[by]]
    if "feature_set" in top and by == "group":
        names = [f"{row_set} / {group}" for row_set, group in zip(top["feature_set"], names, strict=True)]
    bars = [
        {
            "type": "bar",
            "orientation": "h",
            "name": title_of(column),
            "y": names,
            "x": numbers(top[column]),
            "marker": {"color": colour},
            "hovertemplate": "%{y}<br>%{x:.4f}<extra>" + column + "</extra>",
        }
        for column, colour in (("max", "var(--s1-soft)"), ("mean", "var(--s1)"))
    ]
    layout = {
        "barmode": "overlay",
        "xaxis": {"title": {"text": "correlation with features"}},
        "yaxis": {"type": "category"},
    }
    note = "Exposure of the ensemble to single features: mean and largest correlation within an era."
    return Figure("exposure", "Feature exposure", note, [View("", bars, layout)], min(120 + 22 * len(names), 760))
