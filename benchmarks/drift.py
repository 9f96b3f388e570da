"""Made worlds whose signal is stationary, cyclic, or broken once, on which update rules are compared.

In the cyclic world half of the signal's variance is constant and half alternates between a pattern and its reverse; in
the broken one the pattern becomes an unrelated one at an era inside the loop.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from eravane.core.config import PrepareConfig
from eravane.data.features import Features
from eravane.data.ingest import ingest

KINDS = ("stationary", "cyclic", "break")
PERIOD = 80  # eras of a cycle
SIGNAL = 0.16  # correlation of the noiseless signal with the label before it is cut into fifths
TARGET = "target_made_20"


@dataclass(frozen=True)
class DriftConfig:
    """Size of a world.

    Attributes:
        kind: of `KINDS`.
        seed: of everything random.
        eras, rows, features: its size; rows per era.
        breaks_at: era at which the signal of `break` becomes another one.
    """

    kind: str
    seed: int
    eras: int = 260
    rows: int = 300
    features: int = 30
    breaks_at: int = 150


def made_store(folder: Path, config: DriftConfig) -> Features:
    """Write a world as Numerai's files and take it into a store."""
    rng = np.random.default_rng([config.seed, KINDS.index(config.kind)])
    signals = [_Signal(rng, config.features) for _ in range(2)]
    names = [f"feature_{n:03d}" for n in range(config.features)]
    parts = []
    for era in range(1, config.eras + 1):
        x_FN = rng.integers(0, 5, (config.features, config.rows)).astype(np.int8)
        share = _shares(config, era)
        signal_N = share[0] * signals[0].of(x_FN) + share[1] * signals[1].of(x_FN)
        noise_N = rng.normal(size=config.rows)
        raw_N = SIGNAL * signal_N + np.sqrt(1 - SIGNAL**2) * noise_N
        label_N = np.floor(5 * (np.argsort(np.argsort(raw_N)) + 0.5) / config.rows) / 4
        part = pd.DataFrame(
            dict(zip(names, x_FN, strict=True)), index=[f"n{era:04d}{n:06d}" for n in range(config.rows)]
        )
        parts.append(part.assign(era=f"{era:04d}", data_type="train", **{TARGET: label_N.astype(np.float32)}))
    frame = pd.concat(parts).rename_axis("id")
    folder.mkdir(parents=True)
    first = frame["era"].astype(int) <= config.eras // 2
    frame[first].to_parquet(folder / "train.parquet")
    frame[~first].assign(data_type="validation").to_parquet(folder / "validation.parquet")
    sets = dict.fromkeys(("small", "medium", "all"), names)
    (folder / "features.json").write_text(json.dumps({"feature_sets": sets, "targets": [TARGET]}))
    ingest(folder, folder / "store")
    return Features.open(folder / "store", PrepareConfig())


def _shares(config: DriftConfig, era: int) -> tuple[float, float]:
    if config.kind == "cyclic":
        return np.sqrt(0.5), float(np.cos(2 * np.pi * era / PERIOD))
    return (0.0, 1.0) if config.kind == "break" and era >= config.breaks_at else (1.0, 0.0)


class _Signal:
    """Ten linear terms and four products of features, unit variance."""

    def __init__(self, rng: np.random.Generator, features: int) -> None:
        self._linear = rng.choice(features, 10, replace=False)
        self._weights = rng.normal(size=10)
        self._pairs = rng.choice(features, (4, 2), replace=False)
        self._products = rng.normal(size=4)

    def of(self, x_FN: NDArray[np.int8]) -> NDArray[np.float64]:
        z_FN = (x_FN - 2.0) / np.sqrt(2.0)
        raw_N = self._weights @ z_FN[self._linear]
        raw_N += self._products @ (z_FN[self._pairs[:, 0]] * z_FN[self._pairs[:, 1]])
        return np.asarray(raw_N / np.sqrt((self._weights**2).sum() + (self._products**2).sum()))
