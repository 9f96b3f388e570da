"""One task of the zoo: the models of a cell that share training eras, fitted on one matrix, and what they predict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from eravane.backend.choice import backend_of, reclaim
from eravane.core.arrays import Float32s, Values
from eravane.core.config import PrepareConfig
from eravane.core.seeds import derive_seed
from eravane.core.units import format_size
from eravane.data.features import Features
from eravane.data.store.manifest import MANIFEST
from eravane.learners.protocol import GrowsTogether, Learner, OutOfDeviceMemoryError, TakesLevels
from eravane.learners.registry import load_booster, predict
from eravane.zoo.cache import BoosterCache
from eravane.zoo.fleet import TaskControl
from eravane.zoo.residual import benchmark_of, labels_of
from eravane.zoo.specs import ModelSpec
from eravane_kernels.cpu.levelcolumns import LevelColumns

# Binning a matrix costs as much as this many trees on it (measured 10 to 26, narrow to wide).
TREES_PER_MATRIX = 25
# Rows that models predict at once: with a few hundred, as eras of small data have, trees take twice the time a row.
ROWS_AT_ONCE = 4_096


@dataclass(frozen=True)
class TrainTask:
    """The models of one cell that share training eras, and the eras they predict.

    Attributes:
        store: path of the store; workers open it themselves.
        specs: models with the same columns.
        train_first, train_last: training eras, inclusive.
        predict_first, predict_last: eras to predict, inclusive; none where last < first.
        rows: training rows.
        every, half_life, trees: as in ZooConfig.
        learner: grows the trees.
        seed: the run's seed.
        cache: folder of finished boosters, or None.
        hidden: target -> training eras whose labels are not to be seen.
        spread: workers over which the rows of one booster lie (0: a booster trains on one).
    """

    store: Path
    prepare: PrepareConfig
    specs: tuple[ModelSpec, ...]
    train_first: int
    train_last: int
    predict_first: int
    predict_last: int
    rows: int
    every: int
    half_life: float
    trees: int
    learner: Learner
    seed: int
    cache: Path | None
    hidden: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    spread: int = 0

    @property
    def cost(self) -> int:
        """Work in cells x trees, the matrix counted as trees: to start the longest first."""
        return len(self.specs[0].columns) * self.rows * (self.trees * len(self.specs) + TREES_PER_MATRIX)

    @property
    def label(self) -> str:
        """Cell and newest training era, as progress and the Dask dashboard show them."""
        spec = self.specs[0]
        return f"{spec.feature_set}.{spec.group.replace('-', 'without ')} to era {self.train_last}"

    def halves(self) -> tuple[TrainTask, TrainTask]:
        """The same models in two tasks, each with a matrix of its own; models that grow together are separated last."""
        specs = sorted(self.specs, key=lambda spec: spec.seed) if self._together else self.specs
        middle = len(specs) // 2
        return (
            dataclasses.replace(self, specs=tuple(specs[:middle])),
            dataclasses.replace(self, specs=tuple(specs[middle:])),
        )

    def batches(self, done: Container[str] = ()) -> list[list[ModelSpec]]:
        """Models that are grown together: of one seed, in batches of similar size, without those in `done`."""
        found: list[list[ModelSpec]] = []
        if isinstance(self.learner, GrowsTogether):
            for seed in sorted({spec.seed for spec in self.specs}):
                alike = [spec for spec in self.specs if spec.seed == seed]
                parts = -(-len(alike) // self.learner.together)
                found += [alike[len(alike) * part // parts : len(alike) * (part + 1) // parts] for part in range(parts)]
        else:
            found = [[spec] for spec in self.specs]
        # Finished models leave their batch. Regrouping the others could need more memory than `bytes_needed` states.
        left = ([spec for spec in batch if spec.model_id not in done] for batch in found)
        return [batch for batch in left if batch]

    def bytes_needed(self, itemsize: int) -> int:
        """Bytes that training holds at its peak on the learner's device, on features of `itemsize` bytes a cell."""
        most = max(map(len, self.batches()), default=1)
        return self.learner.bytes_needed(self.rows, len(self.specs[0].columns), itemsize, most)

    @property
    def _together(self) -> bool:
        return isinstance(self.learner, GrowsTogether)


@dataclass(frozen=True)
class Finished:
    """One model is done.

    Attributes:
        model_id: the model.
        train_last: newest training era.
        cached: whether it came from the cache.
        seconds: time to grow its trees.
        rows, features, trees: its size.
        device: where its trees were grown.
    """

    model_id: str
    train_last: int
    cached: bool
    seconds: float
    rows: int
    features: int
    trees: int
    device: str

    @property
    def work(self) -> int:
        """Cells x trees."""
        return self.rows * self.features * self.trees


@dataclass(frozen=True)
class Trained:
    """Result of a task.

    Attributes:
        blocks, predictions: per model its booster and its float32 [N].
        seconds: per model the time to grow its trees; 0 where it came from the cache.
        matrix_seconds, predict_seconds: time to bin the matrix, and to predict with all models.
        finished: the report of each model.
    """

    blocks: Mapping[str, bytes]
    predictions: Mapping[str, Float32s]
    seconds: Mapping[str, float]
    matrix_seconds: float
    predict_seconds: float
    finished: tuple[Finished, ...]

    @property
    def parts(self) -> tuple[float, float, float]:
        """Seconds of the matrix, the trees and the predictions."""
        return self.matrix_seconds, sum(self.seconds.values()), self.predict_seconds


class Grower(Protocol):
    """Grows the trees of models of a task."""

    @property
    def matrix_seconds(self) -> float:
        """Time it took to bin the matrix."""
        ...

    def __call__(self, specs: Sequence[ModelSpec]) -> list[bytes]:
        """The blocks of models that are grown together."""
        ...


def train(task: TrainTask, control: TaskControl | None = None, grower: Grower | None = None) -> Trained:
    """Fit and apply the models of one task; boosters found in the cache are not trained again.

    Models that the learner grows together are reported, and cached, when all of them are finished.

    Args:
        task: what to train.
        control: receives the report of every model; its stop is checked between trees.
        grower: grows the trees (None: here, on one matrix for all models).

    Raises:
        RunError: a target has no label in the training eras.
        DeviceError: the device asked for was not used, or has too little memory.
        TrainingInterruptedError: the caller gave up.
    """
    control = control or TaskControl()
    features = features_of(task)
    grower = grower or _OneMatrix(task, features, control)
    cache = BoosterCache(task.cache)
    keys = {spec.model_id: "" if task.cache is None else cache_key(task, spec, features) for spec in task.specs}
    blocks = {name: block for name, key in keys.items() if (block := cache.get(key)) is not None}
    cached, seconds, finished = frozenset(blocks), dict.fromkeys(keys, 0.0), list[Finished]()
    for specs in [[spec] for spec in task.specs if spec.model_id in cached] + task.batches(cached):
        if specs[0].model_id not in cached:
            started, binning = time.perf_counter(), grower.matrix_seconds
            grown = _grown(task, specs, grower, features)
            taken = time.perf_counter() - started - (grower.matrix_seconds - binning)
            for spec, block in zip(specs, grown, strict=True):
                blocks[spec.model_id], seconds[spec.model_id] = block, taken / len(specs)
                cache.put(keys[spec.model_id], block)
        for spec in specs:
            finished.append(_finished(task, spec, spec.model_id in cached, seconds[spec.model_id]))
            control.report(finished[-1])
    blocks = {name: blocks[name] for name in keys}
    matrix_seconds = grower.matrix_seconds
    del grower  # the matrix's memory is free while the models predict
    started = time.perf_counter()
    predictions = _predict(task, blocks, features)
    predict_seconds = time.perf_counter() - started
    return Trained(blocks, predictions, seconds, matrix_seconds, predict_seconds, tuple(finished))


def train_to_predict(task: TrainTask, control: TaskControl | None = None) -> Trained:
    """`train`, for its predictions alone: no boosters come back."""
    return dataclasses.replace(train(task, control), blocks={})


def features_of(task: TrainTask) -> Features:
    """The features that a task trains on.

    A process keeps the store of its last task open while the store's manifest stays the same file: tasks that follow
    each other share its mapped pages, and do not read the manifest again.
    """
    found = (task.store / MANIFEST).stat() if (task.store / MANIFEST).exists() else None
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns) if found else ()
    return _opened(task.store, identity, task.prepare, task.learner.device)


@lru_cache(maxsize=1)
def _opened(store: Path, _identity: tuple[int, ...], prepare: PrepareConfig, device: str) -> Features:
    return Features.open(store, prepare, backend_of(device))


def _grown(task: TrainTask, specs: Sequence[ModelSpec], grower: Grower, features: Features) -> list[bytes]:
    try:
        return grower(specs)
    except OutOfDeviceMemoryError as error:
        needed, columns = task.bytes_needed(np.dtype(features.store.dtype).itemsize), len(specs[0].columns)
        raise OutOfDeviceMemoryError(
            f"{task.label} needs about {format_size(needed)} on {task.learner.device} ({task.rows:,} rows x "
            f"{columns:,} features): {error}; train on fewer eras (zoo.window, zoo.every), fewer models at a "
            'time (compute.workers), or spread it over a cluster (compute.booster_spans = "cluster")'
        ) from error


def _finished(task: TrainTask, spec: ModelSpec, cached: bool, seconds: float) -> Finished:
    return Finished(
        spec.model_id, task.train_last, cached, seconds, task.rows, len(spec.columns), task.trees,
        task.learner.device,
    )  # fmt: skip


class _OneMatrix:
    """Grows every model of a task on one matrix, built when the first model needs it and relabelled for the others."""

    def __init__(self, task: TrainTask, features: Features, control: TaskControl) -> None:
        self._task, self._features, self._control = task, features, control
        self._matrix: Any = None
        self.matrix_seconds = 0.0

    def __call__(self, specs: Sequence[ModelSpec]) -> list[bytes]:
        task, features = self._task, self._features
        if self._matrix is None:
            started = time.perf_counter()
            self._matrix = self._build()
            self.matrix_seconds = time.perf_counter() - started
        eras = (task.train_first, task.train_last)
        weight_N = row_weights(task, features.era_of_rows(*eras, every=task.every))
        label_BN = np.stack(
            [
                labels_of(features, spec, *eras, every=task.every, hidden=task.hidden.get(spec.target, ()))
                for spec in specs
            ]
        )
        how: dict[str, Any] = {"trees": task.trees, "seed": draw_seed(task, specs[0]), "stop": self._control}
        if isinstance(task.learner, GrowsTogether):
            return self._together(task.learner, label_BN, weight_N, how)
        return [task.learner.fit(self._matrix, label_N, weight_N, **how) for label_N in label_BN]

    def _together(
        self, learner: GrowsTogether, label_BN: Float32s, weight_N: Float32s | None, how: dict[str, Any]
    ) -> list[bytes]:
        """Blocks of models that grow together; half as many at a time where memory runs out: the same trees."""
        try:
            return learner.fit_together(self._matrix, label_BN, weight_N, **how)
        except OutOfDeviceMemoryError:
            if len(label_BN) == 1:
                raise
        reclaim(self._task.learner.device)
        middle = len(label_BN) // 2
        halves = label_BN[:middle], label_BN[middle:]
        return [block for half_BN in halves for block in self._together(learner, half_BN, weight_N, how)]

    def _build(self) -> Any:
        task, columns = self._task, self._task.specs[0].columns
        eras = task.train_first, task.train_last
        if isinstance(task.learner, TakesLevels):
            levels = self._features.levels(columns, *eras, every=task.every)
            if levels is not None:
                return task.learner.matrix_of(levels, columns)
        return task.learner.matrix(self._features.table(columns, *eras, every=task.every))


def draw_seed(task: TrainTask, spec: ModelSpec) -> int:
    """The seed of a model's draws: its own, or that of all targets of a cell where the learner grows these together."""
    if isinstance(task.learner, GrowsTogether):
        return derive_seed(task.seed, spec.feature_set, spec.group, spec.seed, task.train_last)
    return derive_seed(task.seed, spec.model_id, task.train_last)


def row_weights(task: TrainTask, era_N: NDArray[np.int64]) -> Float32s | None:
    """Weights of rows of these eras, float32 [N]; None where all are equal."""
    return era_weights(era_N, task.train_last, task.half_life)


def era_weights(era_N: NDArray[np.int64], newest: int, half_life: float) -> Float32s | None:
    """Row weights [N] that halve every `half_life` eras before `newest`; None for equal weights (0)."""
    if not half_life:
        return None
    return np.exp2((era_N - newest) / half_life).astype(np.float32)


def _predict(task: TrainTask, blocks: Mapping[str, bytes], features: Features) -> dict[str, Float32s]:
    if task.predict_last < task.predict_first:
        return {}
    boosters = {spec.model_id: load_booster(blocks[spec.model_id]) for spec in task.specs}
    found: dict[str, list[Float32s]] = {name: [] for name in boosters}
    where = task.predict_first, task.predict_last
    if (levels := features.levels(task.specs[0].columns, *where)) is not None:
        blocks_CN: Iterator[Values | LevelColumns] = levels.parts(ROWS_AT_ONCE if len(boosters) > 1 else levels.rows)
    else:
        blocks_CN = _joined(frame.values for frame in features.each(*where, task.specs[0].columns))
    for values_CN in blocks_CN:
        for name, booster in boosters.items():
            found[name].append(predict([booster], values_CN))
    return {name: np.concatenate(parts) if parts else np.zeros(0, np.float32) for name, parts in found.items()}


def _joined(eras: Iterable[Values]) -> Iterator[Values]:
    """Eras on the host joined to `ROWS_AT_ONCE` rows; those on a device as they are."""
    held: list[Values] = []
    for values_CN in eras:
        held.append(values_CN)
        if not isinstance(values_CN, np.ndarray) or sum(part.shape[1] for part in held) >= ROWS_AT_ONCE:
            yield _as_one(held)
            held = []
    if held:
        yield _as_one(held)


def _as_one(parts: Sequence[Values]) -> Values:
    return parts[0] if len(parts) == 1 else cast(Values, np.concatenate(parts, axis=1))


def cache_key(task: TrainTask, spec: ModelSpec, features: Features) -> str:
    """Name of a model in the cache: 32 hex digits over all that decides it, the training data among it."""
    window = features.needed(task.train_first), task.train_last
    content = {
        "data": features.store.digest(*window, spec.columns, (spec.target,)),
        "prepare": asdict(task.prepare),
        "model": spec.model_id,
        "eras": [task.train_first, task.train_last, task.every],
        "half_life": task.half_life,
        "trees": task.trees,
        "learner": task.learner.identity,
        "seed": task.seed,
        "hidden": list(task.hidden.get(spec.target, ())),
        "spread": task.spread,
    }
    if spec.residual:
        benchmark_N = benchmark_of(features, spec, task.train_first, task.train_last)
        content["residual"] = [spec.residual, hashlib.sha256(benchmark_N.tobytes()).hexdigest()]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
