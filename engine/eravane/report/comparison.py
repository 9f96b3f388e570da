"""Paired comparison of runs with a first run, era by era: is a change real?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from scipy.stats import norm

from eravane.core.errors import RunError
from eravane.report.facts import detectable, difference, judgeable_eras, payout
from eravane.report.formats import number
from eravane.report.load import RunView, load_run
from eravane.scoring.metrics import HacMean, hac_mean

# The ensemble decides; equal weight shows whether a difference comes from the pool rather than from the gate.
SERIES = ("ensemble", "equal_weight")
ERROR_RATE = 0.05


@dataclass(frozen=True)
class Difference:
    """One series of a run against the same series of the first run, on the eras that both count.

    Attributes:
        series: `ensemble`, `equal_weight`, or `payout` (the ensemble's payout mix).
        mean, first_mean: mean score of the run and of the first run on the shared eras.
        gain: paired difference per era with its HAC error.
        detectable: smallest true difference that these eras would have shown, 80 % power, two-sided 5 %.
    """

    series: str
    mean: float
    first_mean: float
    gain: HacMean
    detectable: float


@dataclass(frozen=True)
class Versus:
    """A run against the first run: differences by series, the verdict, and reasons for caution."""

    run: str
    differences: tuple[Difference, ...]
    verdict: str
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """Runs against a first run.

    Attributes:
        first: the run that all others are measured against.
        needed_t: |t| that a verdict needs: two-sided 5 % over all compared runs (Bonferroni).
        others: one entry per further run, in the order given.
    """

    first: str
    needed_t: float
    others: tuple[Versus, ...]

    def as_dict(self) -> dict[str, object]:
        """The comparison as JSON-able values; undefined numbers are None."""
        runs = [
            {
                "run": other.run,
                "verdict": other.verdict,
                "cautions": list(other.cautions),
                "differences": [_as_dict(item) for item in other.differences],
            }
            for other in self.others
        ]
        return {"first": self.first, "needed_t": self.needed_t, "runs": runs}

    def __str__(self) -> str:
        """The comparison as text."""
        return self.as_text()

    def as_text(self) -> str:
        """The comparison as plain lines, one table per run."""
        lines = [f"Against {self.first}, shared eras only; a verdict needs |t| of {self.needed_t:.2f}."]
        for other in self.others:
            lines += ["", f"{other.run}: {other.verdict}"]
            if other.differences:
                lines.append(_row("series", "first", "run", "gain", "HAC t", "detectable", "eras"))
            lines += [
                _row(
                    item.series,
                    number(item.first_mean),
                    number(item.mean),
                    number(item.gain.mean, "+.5f"),
                    number(item.gain.t, ".2f"),
                    number(item.detectable, ".5f"),
                    str(item.gain.n_eras),
                )
                for item in other.differences
            ]
            lines += [f"  caution: {caution}" for caution in other.cautions]
        return "\n".join(lines)


def _row(series: str, *cells: str) -> str:
    return f"  {series:<14}" + "".join(f"{cell:>11}" for cell in cells)


def _as_dict(item: Difference) -> dict[str, object]:
    values = {
        "mean": item.mean,
        "first_mean": item.first_mean,
        "gain": item.gain.mean,
        "hac_se": item.gain.se,
        "hac_t": item.gain.t,
        "detectable": item.detectable,
    }
    defined = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {"series": item.series, **defined, "n_eras": item.gain.n_eras}


SCORES = "scores.parquet"


def compare(runs: Sequence[Path | str]) -> Comparison:
    """Compare every further run with the first, paired by era, from the later of the two `report_start`s on.

    Raises:
        RunError: fewer than two runs, a path that is no run folder, or a run without scores.
    """
    if len(runs) < 2:
        raise RunError(f"comparing takes two run folders or more, given {len(runs)}")
    views = [load_run(run) for run in runs]
    for view in views:
        if "ensemble" not in view.table("scores"):
            why = f"is damaged ({view.damaged[SCORES]})" if SCORES in view.damaged else "is not there"
            raise RunError(f"{view.path / SCORES} {why}; `eravane run --resume` finishes a run")
    names = _names(views)
    needed = float(norm.isf(ERROR_RATE / 2 / (len(views) - 1)))
    others = tuple(_versus(name, view, views[0], needed) for name, view in zip(names[1:], views[1:], strict=True))
    return Comparison(names[0], needed, others)


def _names(views: Sequence[RunView]) -> list[str]:
    names = [view.name for view in views]
    return names if len(set(names)) == len(names) else [str(view.path) for view in views]


def _versus(name: str, view: RunView, first: RunView, needed: float) -> Versus:
    lag = max(view.hac_lag, first.hac_lag)
    pairs = [(series, view.counted(series), first.counted(series)) for series in SERIES]
    pairs.append(("payout", payout(view, "ensemble"), payout(first, "ensemble")))
    found = tuple(
        _difference(series, one, other, lag) for series, one, other in pairs if len(one.index.intersection(other.index))
    )
    ensemble = next((item for item in found if item.series == "ensemble"), None)
    return Versus(name, found, _verdict(ensemble, needed, judgeable_eras(lag)), tuple(_cautions(view, first, ensemble)))


def _difference(series: str, one: pd.Series[float], other: pd.Series[float], lag: int) -> Difference:
    shared = one.index.intersection(other.index)
    gain = hac_mean(difference(one, other), lag)
    return Difference(series, float(one.loc[shared].mean()), float(other.loc[shared].mean()), gain, detectable(gain))


def _verdict(ensemble: Difference | None, needed: float, least: int) -> str:
    if ensemble is None:
        return "cannot be compared: no era is scored in both runs"
    gain = ensemble.gain
    if gain.mean == 0 and gain.se == 0:
        return "the same scores in every shared era"
    if gain.n_eras < least or not gain.se > 0:
        return f"too few shared eras to judge ({gain.n_eras}, at least {least} are needed)"
    if gain.t >= needed:
        return "better, and more than chance"
    if gain.t <= -needed:
        return "worse, and more than chance"
    return f"no proven difference; a true one below {ensemble.detectable:.5f} would probably not be detected here"


def _cautions(view: RunView, first: RunView, ensemble: Difference | None) -> list[str]:
    cautions = [f"{run.name} is stamped as leaking" for run in (first, view) if run.leaking]
    if view.target != first.target:
        cautions.append(f"scored on different targets: {first.target or 'unknown'} and {view.target or 'unknown'}")
    counted = max(len(view.counted("ensemble")), len(first.counted("ensemble")))
    if ensemble is not None and ensemble.gain.n_eras < counted / 2:
        cautions.append(f"only {ensemble.gain.n_eras} of {counted} counted eras are shared")
    return cautions
