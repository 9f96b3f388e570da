"""Warnings of a run: leaks, too few eras, degenerate statistics, missing files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from eravane.calendar.eras import era_label
from eravane.data.catalog import META_MODEL, REFERENCES
from eravane.report.facts import series_facts, weights
from eravane.report.load import CONTRACT, RunView, load_run

Level = Literal["stop", "warn", "note"]

# HAC means of overlapping weekly eras: below this there are fewer than about 15 independent ones.
FEW_ERAS = 52
# Numerai's best published models reach about 0.03; a mean above this on real data is a leak until shown otherwise.
TOO_GOOD = 0.10
SUM_TOLERANCE = 1e-6
AGREEMENT = 1e-9


@dataclass(frozen=True)
class Alert:
    """One warning: `stop` voids the results, `warn` weakens them, `note` informs."""

    level: Level
    title: str
    detail: str

    @property
    def text(self) -> str:
        """The warning as one line."""
        return f"{self.title}: {self.detail}"


def alerts(view: RunView) -> list[Alert]:
    """Every warning that applies to the run folder, the most serious first, each once."""
    seen = [*_leaks(view), *_scores(view), *_weights(view)]
    texts = {alert.text for alert in seen}
    stated = [str(text) for text in view.fact("warnings", default=()) or ()]
    notes = [Alert("warn", "Note of the run", text) for text in stated if text not in texts]
    return sorted([*seen, *notes, *_files(view)], key=lambda alert: ("stop", "warn", "note").index(alert.level))


def warnings(path: Path) -> list[str]:
    """Warnings for the run's own manifest: everything that voids or weakens its results, a line each.

    Raises:
        RunError: the folder is no run.
    """
    view = load_run(path)
    found = [*_leaks(view), *_scores(view), *_weights(view)]
    return [alert.text for alert in found if alert.level != "note"]


def _leaks(view: RunView) -> Iterator[Alert]:
    if view.leaking:
        yield Alert(
            "stop",
            "This run leaks",
            "A lag was set below the minimum, so labels entered before they were known. "
            "None of the scores below could have been earned.",
        )
    scores = view.table("scores")
    lag = view.fact("lags.minimum_score")
    if "known_at" in scores and isinstance(lag, int) and len(scores):
        early = scores.index[(scores["known_at"] - scores.index) < lag]
        if len(early):
            yield Alert(
                "stop",
                "Scores were used before they were due",
                f"{len(early)} eras, the first {era_label(int(early[0]))}, are marked as known less than {lag} "
                "eras later.",
            )
    ensemble = series_facts(view, "ensemble")
    if view.fact("data.made"):
        yield Alert("note", "Made data", "Features and labels are invented; no score here applies to Numerai.")
    elif ensemble.summary.n_eras and ensemble.summary.corr_mean > TOO_GOOD:
        yield Alert(
            "warn",
            "Too good to be true",
            f"Mean CORR is {ensemble.summary.corr_mean:.3f}. On Numerai's data no honest model comes near "
            f"{TOO_GOOD:g}: unless the data is made, look for a leak in features or targets.",
        )


def _scores(view: RunView) -> Iterator[Alert]:
    scores = view.table("scores")
    if "ensemble" not in scores:
        return
    counted = scores[scores.index >= view.report_start]
    n = int(counted["ensemble"].notna().sum())
    gain = series_facts(view, "ensemble").gain
    if n < FEW_ERAS:
        detail = (
            f"The headline rests on {n} scored eras; a year has 52, and neighbouring eras share most of their returns."
        )
        yield Alert("warn", "Few eras", detail)
    if gain is not None and gain.n_eras > 1 and not gain.se > 0:
        yield Alert(
            "note",
            "The gate never left equal weight",
            "Ensemble and equal weight score the same in every counted era, so there is no gain to judge.",
        )
    due = counted[counted["known_at"] <= counted.index.max()] if "known_at" in counted else counted.iloc[:0]
    for name in view.series:
        constant = int(due[name].isna().sum()) if len(due) else 0
        if constant:
            yield Alert(
                "warn",
                f"{name.replace('_', ' ').capitalize()} has eras without a score",
                f"{constant} of {len(due)} due eras are NaN (a constant prediction); means leave them out.",
            )
    yield from _summary_agrees(view)


def _summary_agrees(view: RunView) -> Iterator[Alert]:
    series = view.metrics.get("series")
    stated = series.get("ensemble", {}).get("corr_mean") if isinstance(series, dict) else None
    found = series_facts(view, "ensemble").summary
    if isinstance(stated, int | float) and found.n_eras and abs(stated - found.corr_mean) > AGREEMENT:
        yield Alert(
            "warn",
            "metrics.json and scores.parquet disagree",
            f"metrics.json says mean CORR {stated:.6f}, the scores from era {era_label(view.report_start)} on give "
            f"{found.corr_mean:.6f}. This report shows the latter.",
        )


def _weights(view: RunView) -> Iterator[Alert]:
    table = weights(view)
    if not len(table):
        return
    off = (table.sum(axis=1) - 1).abs() > SUM_TOLERANCE
    if off.any():
        first = era_label(int(table.index[off.to_numpy()][0]))
        yield Alert("stop", "Weights do not sum to 1", f"{int(off.sum())} eras, the first {first}.")
    if (table.to_numpy() < 0).any():
        yield Alert("stop", "Negative weights", "The ensemble is defined with weights of at least zero.")
    unused = [name for name in table.columns if not (table[name] > 0).any()]
    if unused:
        shown = ", ".join(unused[:5]) + (" ..." if len(unused) > 5 else "")
        yield Alert("note", f"{len(unused)} selected models were never open", f"{shown}")
    statistics = view.table("scores").reindex(columns=list(table.columns)).to_numpy(dtype=np.float64)
    if statistics.size and np.isnan(statistics).all(axis=0).any():
        names = [n for n, empty in zip(table.columns, np.isnan(statistics).all(axis=0), strict=True) if empty]
        yield Alert("warn", f"{len(names)} base models have no score", ", ".join(names[:5]))


def _files(view: RunView) -> Iterator[Alert]:
    for name, why in view.damaged.items():
        yield Alert("warn", f"{name} is damaged", why)
    lost = "references" not in view.tables and "references.parquet" not in view.damaged
    if view.finished and lost and META_MODEL in str(view.fact(f"data.{REFERENCES}")):
        yield Alert(
            "warn", "references.parquet is not there", "There is no MMC; the next step with new data writes it."
        )
    if view.finished and not view.missing:
        return
    title = "Files this run does not have" if view.finished else "This run is not finished"
    listed = ", ".join(f"{name} ({CONTRACT[name]})" for name in view.missing)
    yield Alert("note", title, f"Not there{'' if view.finished else ' yet'}: {listed}." if listed else "")
