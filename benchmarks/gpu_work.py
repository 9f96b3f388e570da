"""Shared by the steps of `gpu` about trees: levels with labels on the device, and models about to grow on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.gpu_lab import Lab
from eravane_kernels.growth import Rules, Tree

DEPTH = 5


@dataclass
class Work:
    """Levels on the device, labels with a weak signal in them, and rows held out."""

    lab: Lab
    columns: int
    rows: int
    values_CN: Any = field(init=False)
    label_N: Any = field(init=False)

    def __post_init__(self) -> None:
        self.values_CN = self.lab.levels(self.columns, self.rows, seed=self.columns)
        signal_C = np.random.default_rng(0).standard_normal(self.columns).astype(np.float32)
        total_N = self.lab.xp.zeros(self.rows, dtype=np.float32)
        for column, strength in zip(self.values_CN, signal_C.tolist(), strict=True):
            total_N += strength * column
        noise_N = self.lab.random(1).standard_normal(self.rows).astype(np.float32)
        spread = float(total_N.std()) or 1.0
        self.label_N = self.lab.host(0.5 + 0.05 * (total_N - total_N.mean()) / spread + 0.2 * noise_N)

    def table(self, columns: Any = slice(None), rows: slice = slice(None)) -> Any:
        """Columns as the engine hands them to XGBoost."""
        from eravane.backend import choose

        backend = choose("cuda" if self.lab.device == "cuda" else "cpu", lambda _: None, "none")
        values_CN = self.values_CN[columns, rows]
        return backend.table(values_CN, [f"f{number}" for number in range(len(values_CN))])

    def matrix(self, params: Mapping[str, Any], columns: Any = slice(None), rows: slice = slice(None)) -> Any:
        """A matrix with its labels."""
        from eravane.learners.xgboost import quantile_matrix

        made = quantile_matrix(self.table(columns, rows), params)
        made.set_info(label=self.label_N[rows])
        return made


def tree_seconds(lab: Lab, work: Work, count: int, trees: int, models: int = 1) -> float:
    """Seconds of a tree of one of several models that grow at once: gradients, draws and its fetching included."""
    boosting = boosting_of(lab, work, count, models)
    grown(boosting, 2)
    _, taken = lab.once(lambda: grown(boosting, trees))
    return taken / (trees * models)


def boosting_of(lab: Lab, work: Any, count: int, models: int = 1, **how: Any) -> Any:
    """Models about to grow, on the lab's device."""
    rng = np.random.default_rng(0)
    label_BN = np.repeat(work.label_N[None], models, axis=0)
    label_BN[1:] += 0.1 * rng.standard_normal((models - 1, work.rows), dtype=np.float32)
    given = Rules(max_depth=DEPTH, eta=0.05), label_BN, how.pop("weight_N", None), np.full_like(label_BN, 0.5)
    if lab.device == "cpu":
        from eravane_kernels.cpu.boosting import Boosting
        from eravane_kernels.cpu.levelcolumns import LevelColumns

        return Boosting(LevelColumns.of([work.values_CN]), *given, seed=0, chosen=count, **how)
    from eravane_kernels.cuda.boosting import Boosting as DeviceBoosting
    from eravane_kernels.cuda.growth import Columns

    return DeviceBoosting(Columns.of(work.values_CN), *given, seed=0, chosen=count, **how)


def grown(boosting: Any, trees: int) -> list[list[Tree]]:
    """The next trees of every model, [trees][models]."""
    grown: list[list[Tree]] = []
    while len(grown) < trees:
        grown += boosting.grow(trees - len(grown))
    return grown
