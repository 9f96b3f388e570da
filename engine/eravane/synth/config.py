"""Settings of a made dataset: its size, its signal and how its regimes show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from eravane.core.errors import ConfigError

Visibility = Literal["structure", "marginal", "hidden"]

DEFAULT_TARGETS = (
    "target_cyrusd_20",
    "target_cyrusd_60",
    "target_ender_20",
    "target_ender_60",
    "target_jasper_20",
    "target_jasper_60",
)

_LOWEST = {
    "seed": 0,
    "eras": 30,
    "rows": 20,
    "features": 1,
    "row_group_eras": 1,
    "n_regimes": 1,
    "snr": 0,
    "return_noise": 0,
}
_LARGEST = {
    "seed": 2**63 - 1,
    "eras": 100_000,
    "rows": 1_000_000,
    "features": 100_000,
    "row_group_eras": 100_000,
    "n_regimes": 1_000,
    "snr": 1_000,
    "return_noise": 1_000,
}
_HIGHEST = {
    "overlap": 1,
    "missing_share": 1,
    "train_share": 0.8,
    "row_spread": 0.5,
    "interactions": 1,
    "correlation": 0.9,
    "persistence": 1,
    "feature_persistence": 1,
}


@dataclass(frozen=True)
class SynthConfig:
    """A made dataset's size, signal and regimes; equal configurations give equal data.

    At the default signal with 4,000 rows, 240 features and 80 training eras, the equally weighted mean of one tree
    model per group scores a CORR of .015 to .03 per era, and the best weights per regime .026 to .04.

    Size:
        eras: historical eras, numbered from 1; the live era comes after them.
        rows: mean rows per era; `row_spread` is the largest relative deviation of one era from it.
        features, groups: feature columns and named groups; `features_json` replaces both.
        targets: target names, each ending in `_20` or `_60`; `main_target` is copied to `target` (in Numerai's v5.3
            that is target_ender_60).
        features_json: a Numerai `features.json` whose names, sets, groups and targets are used.
        row_group_eras: eras per parquet row group (a group also never exceeds 1,048,576 rows).
        train_share: share of the eras that goes to train.parquet.
        benchmark_from: first era of the benchmark files (0: none are written).
        meta_eras: newest eras that `meta_model.parquet` covers (0: none is written).

    Signal:
        snr: correlation of the latent target with the regime's own mix of group signals.
        interactions: weight of pair products against linear terms in a group's signal, 0 to 1.
        correlation: correlation of two latent features of one group.
        overlap: share of the features that also belong to a second group.
        missing_share: share of the features that are missing (level 2, float NaN) in early eras.
        constant_features: how many are so throughout.
        return_noise: standard deviation over eras of a group's realised weight around its expected
            weight, in units of the expected weights (which have squares that sum to 1).
        feature_persistence: correlation of a stock's latent features in consecutive eras.

    Regimes:
        regimes: where the regime shows: in within-group correlation ("structure"), in means and
            spreads of float32 features ("marginal"), or nowhere in the features ("hidden").
        n_regimes, persistence: states of the Markov chain and its probability of staying.
        null: no regimes; every group has the same expected weight in every era.

    Raises:
        ConfigError: a value outside its range, or a target without a horizon.
    """

    eras: int = 80
    rows: int = 150
    features: int = 60
    groups: int = 12
    seed: int = 0
    targets: tuple[str, ...] = DEFAULT_TARGETS
    main_target: str = "target_ender_60"
    features_json: Path | None = None
    row_group_eras: int = 10
    train_share: float = 0.47
    row_spread: float = 0.05
    snr: float = 0.08
    interactions: float = 0.45
    correlation: float = 0.25
    overlap: float = 0.15
    missing_share: float = 0.1
    constant_features: int = 0
    return_noise: float = 0.1
    feature_persistence: float = 0.995
    regimes: Visibility = "structure"
    n_regimes: int = 4
    persistence: float = 0.97
    null: bool = False
    benchmark_from: int = 0
    meta_eras: int = 0

    def __post_init__(self) -> None:
        """Check ranges, so that a bad number is named before any file is written."""
        for name, low in _LOWEST.items():
            most = _LARGEST[name]
            _require(low <= getattr(self, name) <= most, name, getattr(self, name), f"from {low} to {most:,}")
        for name, high in _HIGHEST.items():
            _require(0 <= getattr(self, name) <= high, name, getattr(self, name), f"from 0 to {high}")
        _require(1 <= self.groups <= 13, "groups", self.groups, "1 to 13")
        _require(self.features >= self.groups, "features", self.features, "at least one per group")
        _require(self.constant_features < self.features, "constant_features", self.constant_features, "below features")
        for name in ("constant_features", "benchmark_from", "meta_eras"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.regimes in get_args(Visibility), "regimes", self.regimes, f"one of {get_args(Visibility)}")
        for target in self.targets:
            _require(target.endswith(("_20", "_60")), "targets", target, "names that end in _20 or _60")
        if self.features_json is None:
            _require(self.main_target in self.targets, "main_target", self.main_target, "one of the targets")


def _require(holds: bool, name: str, given: object, expected: str) -> None:
    """Raise ConfigError naming the field when a condition does not hold."""
    if not holds:
        raise ConfigError(f"synth: {name} is {given!r}; expected {expected}")


PRESETS: dict[str, SynthConfig] = {
    "tiny": SynthConfig(eras=80, rows=150, features=60, snr=0.5, persistence=0.93, benchmark_from=11, meta_eras=40),
    "small": SynthConfig(
        eras=200, rows=1_000, features=240, snr=0.18, persistence=0.93, benchmark_from=26, meta_eras=90
    ),
    "v5.3": SynthConfig(
        eras=120,
        rows=5_000,
        features=3_555,
        groups=13,
        missing_share=0.54,
        constant_features=30,
        benchmark_from=16,
        meta_eras=40,
    ),
}
"""Named sizes.

`tiny` (tests) and `small` (the demo) have few rows, so their signal is stronger than Numerai's, and their regimes
last 14 eras on average instead of 33, so that a short history holds several. On `small` a model of 40 trees per
group, trained on 60 eras, scores a CORR of .03 on average (.01 to .055), the equally weighted mean of the twelve .065,
and the best weights per regime .08.
`v5.3` has the full width, Numerai's signal-to-noise, 30 constant features and 1,920 that are missing in early eras, as
the files of August 2026; its 120 eras hold 600,000 rows (2.1 GB in memory). The full history is `eras=1231, rows=5567,
benchmark_from=158, meta_eras=99`; the smaller presets begin their benchmarks after the same share of their eras.
"""
