"""The periods of a run: which eras the folds, the loop and the report cover, fixed before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from eravane.calendar.clock import Clock
from eravane.calendar.eras import EraIndex
from eravane.calendar.folds import Fold, walk_forward
from eravane.calendar.horizon import SCORE_MARGIN, Horizon, TargetHorizon
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, RunError


@dataclass(frozen=True)
class Timeline:
    """Every date of a run, in eras; all bounds are inclusive.

    Attributes:
        first_era, last_era: eras of the data that the run uses.
        newest_label: newest era whose main target is known in the file.
        loop_start: first era of the prequential loop; it continues to `last_era`, labelled or not.
        report_start: first era that counts in metrics.json.
        clock: the lags of the main target.
        tree_lags: tree lag of each training target, eras.
        folds: walk-forward folds before the loop, cut for the longest tree lag.
    """

    first_era: int
    last_era: int
    newest_label: int
    loop_start: int
    report_start: int
    clock: Clock
    tree_lags: Mapping[str, int]
    folds: tuple[Fold, ...]

    @property
    def live_era(self) -> int:
        """Number under which live.parquet's era "X" is predicted."""
        return self.last_era + 1

    @property
    def selection_end(self) -> int:
        """Newest era whose score selection may see."""
        return self.clock.newest_score(self.loop_start)

    def as_dict(self) -> dict[str, object]:
        """The periods as they stand in manifest.json."""
        return {
            "first_era": self.first_era,
            "last_era": self.last_era,
            "newest_label": self.newest_label,
            "folds": [fold.name for fold in self.folds],
            "selection_end": self.selection_end,
            "loop_start": self.loop_start,
            "report_start": self.report_start,
            "live_era": self.live_era,
        }

    def lags_as_dict(self) -> dict[str, object]:
        """The lags as they stand in manifest.json."""
        clock = self.clock
        return {
            "score": clock.score_lag,
            "tree": clock.tree_lag,
            "minimum_score": clock.span.score_lag,
            "minimum_tree": clock.span.tree_lag,
            "observed": clock.observed_lag,
            "hac": clock.hac_lag,
            "targets": dict(self.tree_lags),
        }

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], index: EraIndex) -> Timeline:
        """The timeline of a run that continues: its fixed periods and lags, over the present eras.

        Raises:
            RunError: the manifest lacks them.
        """
        try:
            periods, lags = manifest["periods"], manifest["lags"]
            span = Horizon(lags["minimum_score"] - SCORE_MARGIN)
            clock = Clock(
                span=span,
                score_lag=lags["score"],
                tree_lag=lags["tree"],
                observed_lag=lags["observed"],
                stated_hac_lag=0 if lags["hac"] == span.hac_lag else lags["hac"],
            )
            return cls(
                first_era=periods["first_era"],
                last_era=index.last,
                newest_label=periods["newest_label"],
                loop_start=periods["loop_start"],
                report_start=periods["report_start"],
                clock=clock,
                tree_lags=lags["targets"],
                folds=tuple(Fold.from_name(name) for name in periods["folds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"manifest.json lacks the run's periods or lags ({error}); finish the run first") from error


def plan_timeline(
    config: RunConfig, index: EraIndex, newest_label: int, horizons: Mapping[str, TargetHorizon] | None = None
) -> Timeline:
    """Fix the periods of a run.

    Args:
        config: the run's configuration.
        index: eras in the store.
        newest_label: newest era with a known main target.
        horizons: horizon of each target from the data; None takes names and configuration.

    Raises:
        ConfigError: a target's horizon is not known, or the loop leaves no eras for the folds, or no labelled era for
            itself.
    """
    newest = index.select(config.data.first_era, config.data.last_era or index.last)
    observed = newest.last + 1 - newest_label if config.time.observed_lag else 0
    spans = _spans(config, horizons or {})
    clock = Clock.of(
        spans[config.data.target],
        observed_lag=observed,
        score_lag=config.time.score_lag,
        tree_lag=config.time.tree_lag,
    )
    loop_start = config.time.loop_start or newest_label - config.time.loop_eras + 1
    if not newest.first < loop_start <= newest_label:
        raise ConfigError(
            f"the loop would start at era {loop_start}, but eras {newest.first} to {newest_label} have labels; "
            "set time.loop_start, or time.loop_eras to fewer than the labelled eras"
        )
    lags = tree_lags(config, clock, spans)
    folds = tuple(
        walk_forward(
            newest.first,
            loop_start - 1,
            chunk=config.zoo.fold_eras,
            tree_lag=max(lags.values()),
            newest=config.zoo.folds,
            window=config.zoo.window,
            minimum=config.zoo.minimum_eras,
        )
    )
    if folds[0].predict_first > clock.newest_score(loop_start):
        raise ConfigError(
            f"no out-of-fold era is known when the loop starts at era {loop_start}: the oldest is "
            f"{folds[0].predict_first}, known {clock.score_lag} eras later; start the loop later (time.loop_start)"
        )
    warm = folds[0].predict_first + config.gate.warmup + clock.score_lag - 1
    return Timeline(
        first_era=newest.first,
        last_era=newest.last,
        newest_label=newest_label,
        loop_start=loop_start,
        report_start=max(loop_start, min(warm, newest_label)),
        clock=clock,
        tree_lags=lags,
        folds=folds,
    )


def horizons_before(config: RunConfig) -> dict[str, TargetHorizon]:
    """Horizons by the rule before 0.2, for older runs: 20 days where the name has none."""
    eras = config.data.horizon_eras or Horizon.of_days(20).eras
    return {
        target: TargetHorizon(target, Horizon.named(target) or Horizon(eras), "configuration")
        for target in dict.fromkeys((config.data.target, *config.targets))
    }


def _spans(config: RunConfig, horizons: Mapping[str, TargetHorizon]) -> dict[str, Horizon]:
    """Horizon of the main target and of every training target."""
    return {
        target: horizons[target].span if target in horizons else Horizon.required(target, config.data.horizon_eras)
        for target in dict.fromkeys((config.data.target, *config.targets))
    }


def tree_lags(config: RunConfig, clock: Clock, spans: Mapping[str, Horizon] | None = None) -> dict[str, int]:
    """Tree lag of each training target, eras; a 60-day target waits longer than the main one.

    Args:
        config: the run's configuration.
        clock: lags of the main target.
        spans: horizon of each target; None takes names and configuration.

    Raises:
        ConfigError: a target's horizon is not known.
    """
    if config.time.tree_lag is not None:
        return dict.fromkeys(config.targets, config.time.tree_lag)
    spans = _spans(config, {}) if spans is None else spans
    return {target: max(clock.tree_lag, spans[target].tree_lag) for target in config.targets}
