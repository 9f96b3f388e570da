"""The memory plan of a run: estimated before work starts, an error where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from eravane.calendar.eras import EraIndex
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError
from eravane.core.memory import tightest_limit
from eravane.core.units import format_size, parse_size
from eravane.data.catalog import FeatureCatalog
from eravane.data.prepare import Preparer
from eravane.learners.choice import resolve_learner
from eravane.learners.protocol import GrowsTogether
from eravane.learners.registry import make_learner
from eravane.zoo.cluster import LOCAL
from eravane_kernels import cpu
from eravane_kernels.cpu.jit import is_compiled

# Python with NumPy, Arrow, pandas, Numba, XGBoost and torch loaded: measured 0.42 to 0.46 GB, up to .51 under load.
PROCESS_BYTES = 520_000_000
# A worker of a cluster, which loads what trains alone: measured 0.32 GB.
WORKER_BYTES = 340_000_000
# Kernels that are compiled in the first run, by a module that stands for them: those of every run took 0.13 GB more,
# those that grow trees by levels 0.19, both in one run 0.26.
COMPILING_BYTES, COMPILING_LEVELS_BYTES = {"ranks": 150_000_000}, {"boosting": 200_000_000}
# A member from outside: a float32 per row that stays; per row once, while a file is matched: ids of both, two floats64.
MEMBER_BYTES, MATCHING_BYTES = 4, 120


@dataclass(frozen=True)
class Holding:
    """A block of memory that a run holds.

    Attributes:
        name: its key for programs: "process", "matrices", "predictions", "members" or "era".
        what: a description.
        size: bytes.
    """

    name: str
    what: str
    size: int


@dataclass(frozen=True)
class MemoryPlan:
    """Memory of a run at its peak.

    Attributes:
        holdings: blocks that are held at the same time.
        budget: bytes that the configuration allows.
        mapped: bytes of the store read through the page cache, which the system can reclaim.
    """

    holdings: tuple[Holding, ...]
    budget: int
    mapped: int

    @property
    def total(self) -> int:
        """Bytes held at the peak."""
        return sum(holding.size for holding in self.holdings)

    def of(self, name: str) -> int:
        """Bytes of one holding."""
        return next(holding.size for holding in self.holdings if holding.name == name)

    def lines(self) -> list[str]:
        """The plan as lines of text."""
        lines = [f"{format_size(holding.size):>9}  {holding.what}" for holding in self.holdings]
        lines.append(f"{format_size(self.total):>9}  in all, of {format_size(self.budget)} allowed (compute.memory)")
        lines.append(f"{format_size(self.mapped):>9}  of the store read through the page cache, not held")
        return lines

    def require(self) -> None:
        """Check that the plan fits.

        Raises:
            ConfigError: it needs more than the configuration allows, or the machine has.
        """
        largest = max(self.holdings, key=lambda holding: holding.size)
        advice = "set compute.workers lower, zoo.every higher, zoo.window shorter, or take smaller data.feature_sets"
        needed = f"the run would hold {format_size(self.total)}, {format_size(largest.size)} of it {largest.what}"
        if self.total > self.budget:
            raise ConfigError(f"{needed}; compute.memory allows {format_size(self.budget)}: raise it, or {advice}")
        limit = tightest_limit()
        if self.total > limit.reach:
            raise ConfigError(
                f"{needed}; {limit.name} leaves it {format_size(limit.reach)}: raise it or end other programs, "
                f"or {advice}"
            )


def plan_memory(
    config: RunConfig,
    catalog: FeatureCatalog,
    index: EraIndex,
    dtype: str,
    timeline: Timeline,
    workers: int,
    device: str = "cpu",
    *,
    programs: int | None = None,
) -> MemoryPlan:
    """Estimate the peak of a run from its configuration and the eras of its store.

    Args:
        config, catalog, timeline: the run's.
        index, dtype: eras and dtype ("int8" or "float32") of the store.
        workers: models trained at the same time.
        device: where they are trained; matrices on a GPU take nothing of this memory.
        programs: of this machine beside the run's own; None takes the workers where the configuration starts a cluster.
    """
    here = workers if device == "cpu" else 0
    largest = sorted(_training(config, catalog, index, dtype, timeline), reverse=True)[:here]
    models = len(catalog.cells(leave_one_out=config.data.leave_one_group_out)) * config.labels * config.zoo.seeds
    predicted = sum(_rows(index, fold.predict_first, fold.predict_last) for fold in timeline.folds)
    loop_rows = _rows(index, timeline.loop_start, timeline.last_era)
    era_cells = int(index.counts.max()) * len(catalog.columns)
    program = PROCESS_BYTES + sum(size for module, size in _compiled(config, dtype) if not is_compiled(module))
    beside = (workers if config.compute.scheduler == LOCAL else 0) if programs is None else programs
    members = len(config.zoo.members) + len(config.zoo.benchmarks)
    models += members
    return MemoryPlan(
        holdings=(
            Holding(
                "process",
                "for the program and its libraries",
                program + (program - PROCESS_BYTES + WORKER_BYTES) * beside,
            ),
            Holding("matrices", f"for {len(largest)} training matrices at a time, the largest ones", sum(largest)),
            Holding(
                "predictions", f"for predictions of {models} models", 8 * models * predicted + 4 * models * loop_rows
            ),
            Holding(
                "members",
                f"for {members} members from outside",
                index.rows * (MEMBER_BYTES * members + MATCHING_BYTES * min(members, 1)),
            ),
            Holding("era", "for an era's features while it is predicted and described", 10 * era_cells),
        ),
        budget=parse_size(config.compute.memory),
        mapped=index.rows * len(catalog.columns) * np.dtype(dtype).itemsize,
    )


def _compiled(config: RunConfig, dtype: str) -> Iterator[tuple[str, int]]:
    """Modules of kernels that the run needs, and bytes that compiling them takes."""
    yield from COMPILING_BYTES.items()
    if resolve_learner(config, dtype)[0].zoo.learner == "levels":
        yield from COMPILING_LEVELS_BYTES.items()


def _training(
    config: RunConfig, catalog: FeatureCatalog, index: EraIndex, dtype: str, timeline: Timeline
) -> Iterator[int]:
    """Peak bytes of every matrix that is trained on: each cell, each fold and the last update of the loop."""
    config, _ = resolve_learner(config, dtype)
    zoo, width = config.zoo, np.dtype(dtype).itemsize
    learner, _ = make_learner(zoo, "cpu")
    together = config.labels if isinstance(learner, GrowsTogether) else 1
    preparer = Preparer(config.prepare, cpu)
    copied = zoo.every != 1 or not preparer.keeps(dtype)
    missing = dtype == "float32" and config.prepare.impute == "none"
    spans = [(fold.train_first, fold.train_last) for fold in timeline.folds]
    # Appended trees and renewed leaves read few eras: first models and refits read all.
    newest = timeline.live_era if config.loop.update.startswith("refit") else timeline.loop_start
    spans.append((timeline.first_era, newest - min(timeline.tree_lags.values())))
    for first, last in spans:
        start = max(first, last - zoo.window + 1) if zoo.window else first
        rows = int(index.select(start, last).counts[:: zoo.every].sum())
        for cell in catalog.cells(leave_one_out=config.data.leave_one_group_out):
            columns = len(preparer.columns(cell.columns))
            held = learner.bytes_needed(rows, columns, width, together, missing=missing)
            yield held + copied * rows * columns * width


def _rows(index: EraIndex, first: int, last: int) -> int:
    return index.select(first, last).rows
