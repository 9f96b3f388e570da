"""Specifications of the base models: one per feature set, feature group, target and seed."""

from __future__ import annotations

from dataclasses import dataclass, field

from eravane.core.config import RunConfig
from eravane.data.catalog import FeatureCatalog
from eravane.learners.outside import OUTSIDE


@dataclass(frozen=True)
class ModelSpec:
    """Specification of a base model.

    Attributes:
        feature_set, group: its cell.
        target: column it is trained on.
        seed: number of the seed, from 0.
        columns: its features.
        residual: share of the benchmark model that is taken out of the target, era by era (0: none).
        benchmark: file with the benchmark model's predictions of the store's rows; "" where nothing is taken out.
    """

    feature_set: str
    group: str
    target: str
    seed: int
    columns: tuple[str, ...] = field(repr=False)
    residual: float = 0.0
    benchmark: str = field(default="", repr=False, compare=False)

    @property
    def model_id(self) -> str:
        """Name of the model in every file: set.group.target.seed, the target with "-less50" for a residual of .5."""
        less = f"-less{round(100 * self.residual)}" if self.residual else ""
        return f"{self.feature_set}.{self.group}.{self.target.removeprefix('target_')}{less}.{self.seed}"

    @property
    def outside(self) -> bool:
        """Whether it is a member from outside: named by its group, never trained, without features."""
        return self.feature_set == OUTSIDE


def model_specs(catalog: FeatureCatalog, config: RunConfig) -> list[ModelSpec]:
    """Every base model of a run, cell by cell, target by target, seed by seed; residual targets beside plain ones."""
    cells = catalog.cells(leave_one_out=config.data.leave_one_group_out)
    return [
        ModelSpec(cell.feature_set, cell.group, target, seed, cell.columns, residual)
        for cell in cells
        for target in config.targets
        for residual in dict.fromkeys((0.0, config.zoo.residual))
        for seed in range(config.zoo.seeds)
    ]
