"""The work of a run, counted: cells, trees, eras and bytes by stage, and the seconds they take at given rates."""

from __future__ import annotations

import importlib
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eravane.backend import why_no_gpu
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import DeviceError
from eravane.core.memory import cores as cores_here
from eravane.core.memory import tightest_limit
from eravane.core.telemetry import NVML
from eravane.data.catalog import Cell
from eravane.data.resident import fitting
from eravane.gate.context import WIDEST_CELL
from eravane.gate.training import Training
from eravane.gate.versions import scored_versions
from eravane.learners.forest import device_bytes
from eravane.learners.registry import make_learner
from eravane.loop.updates import APPEND_ERAS, eras_before
from eravane.planning.rates import CPU_CORE, H100, HOST, LEVELS_CORE, LEVELS_H100, SHALLOW
from eravane.planning.shape import DataShape
from eravane_kernels.cpu.walk import DEEPEST

DEFAULT_DEPTH, DEFAULT_SHARE = 5, 0.1
# Bytes of a booster: per tree, and per node of a full tree (measured on depths 4 to 6).
TREE_BYTES, NODE_BYTES = 700, 40
ID_BYTES, REPORT_BYTES = 24, 5_000_000


H100_BYTES = 80_000_000_000
# What a run leaves free on a GPU.
RESERVED = 1 << 30


@dataclass(frozen=True)
class Hardware:
    """The machine of a run; `device` is "cpu" or "cuda", sizes are free bytes, infinite where unknown."""

    device: str
    cores: int
    gpus: int
    memory: float
    disk: float


def this_machine(device: str, cores: int = 0, gpus: int = 1) -> Hardware:
    """This machine, or one with `cores` cores and unknown memory and disk; "auto" looks for a GPU."""
    reason = why_no_gpu() if device != "cpu" else ""
    chosen = "cpu" if device == "cpu" or (device == "auto" and reason is not None) else "cuda"
    if cores or (chosen == "cuda" and reason is not None):
        return Hardware(chosen, cores or cores_here(), gpus, math.inf, math.inf)
    free = float(shutil.disk_usage(Path.cwd()).free)
    return Hardware(chosen, cores_here(), gpus, float(tightest_limit().reach), free)


class Workload:
    """Counts the work of a run and multiplies it by rates.

    Args:
        config, shape, timeline: the run's.
        hardware: the machine it would run on.

    Attributes:
        rates: of what grows the trees.
        workers: models trained at the same time.
    """

    def __init__(self, config: RunConfig, shape: DataShape, timeline: Timeline, hardware: Hardware) -> None:
        self._config, self._shape, self._timeline, self._hardware = config, shape, timeline, hardware
        self.rates = CPU_CORE if hardware.device == "cpu" else H100
        self._share = 1.0
        if config.zoo.learner == "levels":
            self.rates = LEVELS_CORE if hardware.device == "cpu" else LEVELS_H100
            self._share = float(config.zoo.params.get("colsample_bytree", DEFAULT_SHARE))
        self._lanes = min(config.compute.workers or hardware.cores, hardware.cores)
        if hardware.device != "cpu":
            self._lanes = hardware.gpus
        self.workers = self._lanes if hardware.device == "cpu" else 2 * hardware.gpus
        self._cells = shape.catalog.cells(leave_one_out=config.data.leave_one_group_out)
        self._depth = int(config.zoo.params.get("max_depth", DEFAULT_DEPTH))
        lags = list(timeline.tree_lags.values())
        self._lags = {lag: lags.count(lag) * config.zoo.seeds for lag in lags}
        self._models = len(self._cells) * len(lags) * config.zoo.seeds
        selection = config.selection
        self._copies = min(selection.per_cell, len(lags) * config.zoo.seeds)
        # Selection prefers scores, not widths; the widest cells, taken in its place, rarely fall short of the cost.
        widest = sorted(self._cells, key=lambda cell: -len(cell.columns))
        self._kept = [cell for cell in widest for _ in range(self._copies)][: selection.most]
        self._chosen = len(self._kept)
        self._columns = len(shape.catalog.columns)
        self._widest = int(shape.index.counts.max())

    def as_text(self) -> str:
        """The counts as text."""
        shape, timeline = self._shape, self._timeline
        return (
            f"{len(shape.index):,} eras, {shape.index.rows:,} rows x {self._columns:,} features; {self._models} models "
            f"x {len(timeline.folds)} folds of {self._config.zoo.trees:,} trees of depth {self._depth}; "
            f"loop of {len(self._loop_eras()):,} eras with {self._chosen} models"
        )

    def seconds(self) -> dict[str, tuple[float, float]]:
        """Wall seconds on idle hardware, and seconds over all workers, by stage."""
        matrices, trees, predictions = self._zoo()
        longest = max(a + b for a, b in zip(matrices, trees, strict=True))
        fair = (sum(matrices) + sum(trees)) / self._lanes
        stretch = max(1.0, longest / fair) / self._lanes
        loop, updates = self._loop(), self._updates()
        ingest, selection, live = self._ingest(), self._selection(), self._live()
        return {
            "ingest": (ingest, ingest),
            "zoo matrices": (stretch * sum(matrices), sum(matrices)),
            "zoo trees": (stretch * sum(trees), sum(trees)),
            "predictions": (sum(predictions) / min(self.workers, self._hardware.cores), sum(predictions)),
            "selection": (selection, selection),
            "loop": (loop + updates / self._lanes, loop + updates),
            "live": (live, live),
        }

    def disk(self) -> dict[str, int]:
        """Bytes that stay on disk, by stage."""
        shape, rows, timeline = self._shape, self._shape.index.rows, self._timeline
        width, folds = np.dtype(shape.dtype).itemsize, timeline.folds
        store = (rows + shape.live_rows) * (self._columns * width + 4 * shape.targets + ID_BYTES)
        booster = self._config.zoo.trees * (TREE_BYTES + NODE_BYTES * 2 ** (self._depth + 1))
        predicted = self._rows(folds[0].predict_first, folds[-1].predict_last)
        loop = self._rows(timeline.loop_start, None) + shape.live_rows
        return {
            "ingest": 0 if shape.stored else store + 8 * len(shape.index) * self._columns,
            "zoo matrices": 0,
            "zoo trees": self._models * len(folds) * booster,
            "predictions": predicted * (4 * self._models + ID_BYTES),
            "selection": 0,
            # In the cache, as the run's own models, and in two checkpoints; predictions in the journal and as a table.
            "loop": self._chosen * booster * (2 + self._refits()) + loop * (8 * self._chosen + 16 + ID_BYTES),
            "live": loop * (8 + ID_BYTES) + REPORT_BYTES,
        }

    def device_memory(self) -> int:
        """Bytes on a GPU of the largest training, and of the trees that predict in the loop."""
        if self._hardware.device == "cpu":
            return 0
        learner, _ = make_learner(self._config.zoo, "cuda")
        itemsize, models = np.dtype(self._shape.dtype).itemsize, self._config.labels
        rows = max(self._training_rows(fold.train_first, fold.train_last) for fold in self._timeline.folds)
        training = max(learner.bytes_needed(rows, len(cell.columns), itemsize, models) for cell in self._cells)
        return training + device_bytes(self._config.zoo.trees * self._chosen, learner.params)

    def kept_features(self) -> str:
        """Features that stay on the GPU, in words; empty on the CPU. Of an H100 where no GPU is here."""
        if self._hardware.device == "cpu":
            return ""
        column = self._shape.index.rows * np.dtype(self._shape.dtype).itemsize
        widest, wanted = max(len(cell.columns) for cell in self._cells), len(self._shape.catalog.columns)
        board, size = _smallest_gpu()
        kept = fitting(column, "cuda", size - RESERVED, wanted, widest, self.device_memory())
        return f"{kept} ({board})"

    def _rows(self, first: int, last: int | None) -> int:
        index = self._shape.index
        return index.select(max(first, index.first), index.last if last is None else last).rows

    def _training_rows(self, first: int, last: int) -> int:
        zoo, index = self._config.zoo, self._shape.index
        start = max(first, last - zoo.window + 1) if zoo.window else first
        return int(index.select(start, last).counts[:: zoo.every].sum())

    def _ingest(self) -> float:
        rows, width = self._shape.index.rows + self._shape.live_rows, np.dtype(self._shape.dtype).itemsize
        verify = HOST.verify * rows * self._columns * width
        if self._shape.stored:
            return verify
        return verify + HOST.ingest + rows * (HOST.ingest_row + self._columns * HOST.ingest_cell)

    def _zoo(self) -> tuple[list[float], list[float], list[float]]:
        """Seconds of every task: its matrix, its trees, its predictions."""
        trees = self._config.zoo.trees
        matrices, growth, predictions = [], [], []
        for fold in self._timeline.folds:
            eras = len(self._shape.index.select(fold.predict_first, fold.predict_last))
            predicted = self._rows(fold.predict_first, fold.predict_last)
            for lag, models in self._lags.items():
                rows = self._training_rows(fold.train_first, fold.train_last_at(lag))
                for cell in self._cells:
                    matrices.append(self.rates.to_bin(rows, len(cell.columns)))
                    growth.append(models * trees * self._grow(rows, len(cell.columns)))
                    predictions.append(models * self._predict(predicted, eras, cell, trees))
        return matrices, growth, predictions

    def _predict(self, rows: int, eras: int, cell: Cell, trees: int) -> float:
        if self._shape.dtype == "int8" and self._depth <= DEEPEST:
            return HOST.to_unfold(rows, len(cell.columns), trees, self._depth)
        reading = rows * len(cell.columns) * HOST.predict_cell
        return reading + rows * trees * self._depth * HOST.predict_level + eras * HOST.predict_call

    def _grow(self, rows: int, columns: int) -> float:
        """Seconds of a tree: of XGBoost on all columns, of the level grower on those that the tree samples."""
        return self.rates.to_grow(rows, max(1, int(self._share * columns)), self._depth)

    def _selection(self) -> float:
        folds = self._timeline.folds
        eras = self._shape.index.select(folds[0].predict_first, self._timeline.selection_end)
        per_row, per_era = HOST.outcome
        return per_row * eras.rows * self._models + per_era * len(eras)

    def _live(self) -> float:
        per_cell, once = HOST.insights
        return per_cell * self._columns * self._rows(self._timeline.last_era - 51, None) + once

    def _loop_eras(self) -> list[int]:
        timeline = self._timeline
        eras = list(self._shape.index.select(timeline.loop_start, timeline.last_era))
        return [*eras, timeline.live_era] if self._shape.live_rows else eras

    def _loop(self) -> float:
        """Seconds of the loop and of the history before it, without the training of trees."""
        timeline, eras = self._timeline, self._loop_eras()
        index = self._shape.index
        history = index.select(timeline.folds[0].predict_first, timeline.folds[-1].predict_last)
        rows = history.rows + self._rows(timeline.loop_start, None) + self._shape.live_rows
        count = len(history) + len(eras)
        per_row, per_era = HOST.outcome
        scored = 2 * per_row * rows * self._chosen + 2 * per_era * count
        trees, every = self._config.zoo.trees, self._config.loop.every
        # The versions before a refit predict on, for the history of the present one.
        versions = [len(scored_versions(number // every + 1)) if self._refits() else 1 for number in range(len(eras))]
        looped = (rows - history.rows) * sum(versions) // len(eras)
        predicted = sum(self._predict(looped, sum(versions), cell, trees) for cell in self._kept)
        saved = len(eras) * (HOST.save + HOST.decide * self._chosen)
        gate = self._gate(len(history), len(eras))
        return HOST.begin + self._context(rows, count) + scored + predicted + saved + gate

    def _context(self, rows: int, eras: int) -> float:
        thinned = sum(min(len(cell.columns), WIDEST_CELL) for cell in self._cells)
        product, pair, cell, era = self.rates.context
        return rows * (product * thinned**2 + cell * self._columns) + eras * (pair * thinned**2 + era)

    def _gate(self, history: int, eras: int) -> float:
        gate = self._config.gate
        known = history + eras
        fits = max(0, min(gate.rehearsal, history - gate.warmup)) + max(0, min(eras, known - gate.warmup))
        refits = fits // gate.refit_every + 1
        full, warm = HOST.step
        steps = Training.of(gate).warm_steps
        return gate.seeds * (refits * gate.steps * full + max(0, fits - refits) * steps * warm)

    def _updates(self) -> float:
        """Seconds of training trees in the loop: the first models, and updates on schedule."""
        loop, timeline = self._config.loop, self._timeline
        trained = self._train(timeline.loop_start, self._config.zoo.window)
        for number, _ in enumerate(self._loop_eras()):
            era = timeline.loop_start + number
            if not number or loop.update == "none":
                continue
            if loop.update != "leaves" and number % loop.every == 0:
                trained += self._append(era) if loop.update == "append" else self._refit(era)
            elif "leaves" in loop.update and number % loop.leaves_every == 0:
                trained += self._renew(era)
        return trained

    def _refits(self) -> int:
        loop = self._config.loop
        return (len(self._loop_eras()) - 1) // loop.every if loop.update.startswith("refit") else 0

    def _train(self, era: int, window: int) -> float:
        """Seconds to refit the chosen models at an era."""
        first, last = self._timeline.first_era, era - max(self._lags)
        rows = self._training_rows(max(first, last - window + 1) if window else first, last)
        return sum(self._fit(rows, cell, self._config.zoo.trees) for cell in self._kept)

    def _refit(self, era: int) -> float:
        """Seconds to refit the chosen models at an era, and to score them in eras before a window that rolls."""
        window, timeline = self._config.zoo.window, self._timeline
        seconds = self._train(era, window)
        scored = eras_before(era - max(self._lags) - window + 1, window, timeline.clock.purge)
        first, last = max(timeline.folds[0].predict_first, scored.start), scored.stop - 1
        if first > last:
            return seconds
        eras, rows = len(self._shape.index.select(first, last)), self._rows(first, last)
        return seconds + sum(self._predict(rows, eras, cell, self._config.zoo.trees) for cell in self._kept)

    def _fit(self, rows: int, cell: Cell, trees: int) -> float:
        columns = len(cell.columns)
        return self.rates.to_bin(rows, columns) / self._copies + trees * self._grow(rows, columns)

    def _append(self, era: int) -> float:
        loop, last = self._config.loop, era - max(self._lags)
        rows = self._rows(last - APPEND_ERAS + 1, last)
        eras = loop.every + 1
        new = int(rows * min(1.0, eras / APPEND_ERAS))
        margins = sum(self._predict(new, eras, cell, self._config.zoo.trees) for cell in self._kept)
        return margins + sum(self._fit(rows, cell, loop.append_trees) for cell in self._kept)

    def _renew(self, era: int) -> float:
        loop, last, trees = self._config.loop, era - max(self._lags), self._config.zoo.trees
        rows = self._rows(last - loop.leaves_every + 1, last)
        per_node, per_model = HOST.leaf
        per_row = self.rates.renew * self._depth * (3 if self._depth > SHALLOW else 1)
        leaves = trees * (rows * per_row + float(2 ** (self._depth + 1)) * per_node) + per_model
        return leaves * len(self._kept)


def _smallest_gpu() -> tuple[str, int]:
    """Name and bytes of the smallest GPU that this process may use; of an H100 where there is none."""
    try:
        facts = importlib.import_module(NVML).Gpus().facts()
    except (ImportError, DeviceError):
        facts = []
    sizes = [(int(fact["memory_bytes"]), str(fact.get("name", "this GPU"))) for fact in facts if "memory_bytes" in fact]
    size, name = min(sizes, default=(H100_BYTES, "of an H100 with 80 GB"))
    return name, size
