"""The cost of a run, predicted before it starts: time, peak memory and disk by stage, and changes that would fit.

docs/cost.md derives the formulas; `python -m benchmarks cost` measures their error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from eravane.calendar.timeline import Timeline, plan_timeline
from eravane.core.config import RunConfig
from eravane.core.units import duration, format_size
from eravane.learners.choice import resolve_learner
from eravane.learners.registry import make_learner
from eravane.planning.memory import MemoryPlan, plan_memory
from eravane.planning.shape import DataShape
from eravane.planning.workload import Hardware, Workload

STAGES = ("ingest", "zoo matrices", "zoo trees", "predictions", "selection", "loop", "live")
# Two decoded blocks of columns and the program (measured 0.48 GB at the width of v5.3).
INGEST_BYTES = 500_000_000


@dataclass(frozen=True)
class Stage:
    """Cost of a stage: wall seconds on idle hardware, seconds over all workers, bytes held and bytes left on disk."""

    name: str
    seconds: float
    work: float
    memory: int
    disk: int


@dataclass(frozen=True)
class CostPlan:
    """Predicted cost of a run.

    Attributes:
        stages: in the order of `STAGES`.
        learner: what grows the trees and why, where the configuration leaves it open; else empty.
        rates: whose rates they rest on.
        counts: what was counted, for people.
        target: the main target's horizon and the lags that follow from it, and what in the data speaks against it.
        device_memory: bytes on a GPU of the largest training and of the trees that predict; 0 on the CPU.
        features: what of the features stays on the GPU; empty on the CPU.
        allowed: bytes of memory that the configuration allows or the hardware has, whichever is less.
        free_disk: free bytes on disk.
        alternatives: changes of the configuration, each of which alone makes the memory fit; empty where it fits.
    """

    stages: tuple[Stage, ...]
    learner: str
    rates: str
    counts: str
    target: tuple[str, ...]
    device_memory: int
    features: str
    allowed: float
    free_disk: float
    alternatives: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """Wall seconds of the whole run."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def memory(self) -> int:
        """Bytes held at the peak."""
        return max(stage.memory for stage in self.stages)

    @property
    def disk(self) -> int:
        """Bytes left on disk."""
        return sum(stage.disk for stage in self.stages)

    def lines(self) -> list[str]:
        """The plan as text."""
        lines = [f"{'stage':14}{'time':>12}{'core time':>12}{'memory':>10}{'disk':>10}"]
        lines += [_line(stage.name, stage.seconds, stage.work, stage.memory, stage.disk) for stage in self.stages]
        lines.append(_line("in all", self.seconds, sum(stage.work for stage in self.stages), self.memory, self.disk))
        lines += [
            "",
            *self.target,
            *filter(None, [self.learner]),
            self.counts,
            f"rates of {self.rates}; time is that of idle hardware",
        ]
        if self.device_memory:
            lines.append(f"{format_size(self.device_memory)} of a GPU's memory for the largest training and for trees")
            lines.append(self.features)
        if self.memory > self.allowed:
            lines.append(
                f"DOES NOT FIT: {format_size(self.memory)} needed, {format_size(self.allowed)} allowed or free"
            )
            lines += [f"  would fit: {change}" for change in self.alternatives]
            lines += (
                [] if self.alternatives else ["  no single change is enough: combine fewer workers, eras and features"]
            )
        if self.disk > self.free_disk:
            lines.append(f"DOES NOT FIT: {format_size(self.disk)} of disk needed, {format_size(self.free_disk)} free")
        return lines

    def as_dict(self) -> dict[str, object]:
        """The plan as JSON-able values, in seconds and bytes."""
        totals = {"seconds": self.seconds, "memory": self.memory, "disk": self.disk, "fits": self.fits}
        finite = {
            key: value
            for key, value in (("allowed", self.allowed), ("free_disk", self.free_disk))
            if math.isfinite(value)
        }
        return {**dataclasses.asdict(self), "allowed": None, "free_disk": None, **finite, **totals}

    @property
    def fits(self) -> bool:
        """Whether memory and disk suffice."""
        return not (self.memory > self.allowed or self.disk > self.free_disk)


def _line(name: str, seconds: float, work: float, memory: int, disk: int) -> str:
    sizes = f"{format_size(memory):>10}{format_size(disk) if disk else '-':>10}"
    return f"{name:14}{duration(seconds):>12}{duration(work):>12}{sizes}"


def plan_cost(config: RunConfig, shape: DataShape, hardware: Hardware) -> CostPlan:
    """Predict the cost of a run.

    Raises:
        ConfigError: the periods do not fit the data, parameters are wrong, or `compute.memory` is no size.
    """
    config, learner = resolve_learner(config, shape.dtype)
    timeline = plan_timeline(config, shape.index, shape.newest_label, shape.horizons)
    _, notes = make_learner(config.zoo, "cpu")  # refuses wrong parameters, too
    work = Workload(config, shape, timeline, hardware)
    memory = plan_memory(config, shape.catalog, shape.index, shape.dtype, timeline, work.workers, hardware.device)
    seconds, held, disk = work.seconds(), _held(memory), work.disk()
    plan = CostPlan(
        stages=tuple(Stage(name, *seconds[name], held[name], disk[name]) for name in STAGES),
        learner="; ".join(filter(None, [learner, *notes])),
        rates=work.rates.name,
        counts=work.as_text(),
        target=_target(config, shape, timeline),
        device_memory=work.device_memory(),
        features=work.kept_features(),
        allowed=min(memory.budget, hardware.memory),
        free_disk=hardware.disk,
        alternatives=(),
    )
    if plan.memory <= plan.allowed:
        return plan
    return dataclasses.replace(plan, alternatives=tuple(_alternatives(config, shape, hardware)))


def _target(config: RunConfig, shape: DataShape, timeline: Timeline) -> tuple[str, ...]:
    clock, main = timeline.clock, shape.horizons[config.data.target]
    notes = [f"CONTRADICTION: {note}" for horizon in shape.horizons.values() for note in horizon.notes]
    return (main.sentence(clock.score_lag, clock.tree_lag), *notes)


def _held(memory: MemoryPlan) -> dict[str, int]:
    shared = memory.of("process") + memory.of("predictions")
    zoo, rest = shared + memory.of("matrices"), shared + memory.of("era")
    held = (INGEST_BYTES, zoo, zoo, zoo, rest, memory.total, rest)
    return dict(zip(STAGES, held, strict=True))


def _alternatives(config: RunConfig, shape: DataShape, hardware: Hardware) -> Iterator[str]:
    """Changes with which the memory would suffice, the mildest of each kind."""
    for changes in (_workers(config, hardware), _every(config), _window(config, shape)):
        for change, changed in changes:
            needed, allowed = _needed(changed, shape, hardware)
            if needed <= min(allowed, hardware.memory):
                yield f"{change} ({format_size(needed)})"
                break
    for change, smaller in _sets(shape):
        needed, allowed = _needed(config, smaller, hardware)
        if needed <= min(allowed, hardware.memory):
            yield f"{change} ({format_size(needed)})"
            break
    needed, allowed = _needed(config, shape, hardware)
    if allowed < needed <= hardware.memory:
        yield f'compute.memory = "{math.ceil(needed / 1e9)}GB"'


def _needed(config: RunConfig, shape: DataShape, hardware: Hardware) -> tuple[int, int]:
    """Bytes that a configuration holds at its peak, and those that it allows."""
    timeline = plan_timeline(config, shape.index, shape.newest_label, shape.horizons)
    workers = Workload(config, shape, timeline, hardware).workers
    plan = plan_memory(config, shape.catalog, shape.index, shape.dtype, timeline, workers, hardware.device)
    return plan.total, plan.budget


def _workers(config: RunConfig, hardware: Hardware) -> Iterator[tuple[str, RunConfig]]:
    for workers in range((config.compute.workers or hardware.cores) - 1, 0, -1):
        changed = dataclasses.replace(config.compute, workers=workers)
        yield f"compute.workers = {workers}", dataclasses.replace(config, compute=changed)


def _every(config: RunConfig) -> Iterator[tuple[str, RunConfig]]:
    for every in (2, 3, 4, 6, 8):
        if every > config.zoo.every:
            yield f"zoo.every = {every}", dataclasses.replace(config, zoo=dataclasses.replace(config.zoo, every=every))


def _window(config: RunConfig, shape: DataShape) -> Iterator[tuple[str, RunConfig]]:
    for window in (400, 300, 200, 150, 100, 50):
        if window < (config.zoo.window or len(shape.index)):
            changed = dataclasses.replace(config.zoo, window=window)
            yield f"zoo.window = {window}", dataclasses.replace(config, zoo=changed)


def _sets(shape: DataShape) -> Iterator[tuple[str, DataShape]]:
    sets = dict(shape.catalog.sets)
    for name in sorted(sets, key=lambda name: -len(sets[name]))[:-1]:
        del sets[name]
        catalog = dataclasses.replace(shape.catalog, sets=dict(sets))
        yield f"data.feature_sets = {list(sets)}", dataclasses.replace(shape, catalog=catalog)
