"""One task of the zoo: the models of a cell that share training eras, fitted on one matrix, and what they predict."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from eravane.config import PrepareConfig
from eravane.features import Features
from eravane.seeds import derive_seed
from eravane.zoo.cache import BoosterCache
from eravane.zoo.fleet import Watch
from eravane.zoo.learner import Learner
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trees import OutOfDeviceMemoryError, load_booster, predict

FloatArray = NDArray[np.float32]

# Binning a matrix costs as much as this many trees on it (measured 10 to 26, narrow to wide).
TREES_PER_MATRIX = 25


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
        """The same models in two tasks, each with a matrix of its own."""
        middle = len(self.specs) // 2
        return (
            dataclasses.replace(self, specs=self.specs[:middle]),
            dataclasses.replace(self, specs=self.specs[middle:]),
        )


@dataclass(frozen=True)
class Finished:
    """One model is done.

    Attributes:
        label: cell and newest training era.
        model_id: the model.
        train_last: newest training era.
        cached: whether it came from the cache.
        seconds: time to grow its trees.
        rows, features, trees: its size.
        device: where its trees were grown.
    """

    label: str
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
    """What a task gives back.

    Attributes:
        blocks, predictions: per model its booster and its float32 [N].
        seconds: per model the time to grow its trees; 0 where it came from the cache.
        matrix_seconds, predict_seconds: time to bin the matrix, and to predict with all models.
        cached: models that came from the cache.
        finished: what was told of each model.
    """

    blocks: Mapping[str, bytes]
    predictions: Mapping[str, FloatArray]
    seconds: Mapping[str, float]
    matrix_seconds: float
    predict_seconds: float
    cached: int
    finished: tuple[Finished, ...]


class Grower(Protocol):
    """Grows the trees of one model of a task."""

    @property
    def matrix_seconds(self) -> float:
        """Time it took to bin the matrix."""
        ...

    def __call__(self, spec: ModelSpec) -> bytes:
        """The model's block of trees."""
        ...


def train(task: TrainTask, watch: Watch | None = None, grower: Grower | None = None) -> Trained:
    """Fit and apply the models of one task; boosters found in the cache are not trained again.

    Args:
        task: what to train.
        watch: told of every model, asked between trees whether to go on.
        grower: grows the trees (None: here, on one matrix for all models).

    Raises:
        RunError: a target has no label in the training eras.
        DeviceError: the device asked for was not used, or has too little memory.
        TrainingInterruptedError: the caller gave up.
    """
    watch = watch or Watch()
    features = Features.open(task.store, task.prepare)
    grower = grower or _OneMatrix(task, features, watch)
    keys = {spec.model_id: cache_key(task, spec, features) for spec in task.specs}
    cache = BoosterCache(task.cache)
    blocks = {name: block for name, key in keys.items() if (block := cache.get(key)) is not None}
    cached, seconds, finished = len(blocks), dict.fromkeys(keys, 0.0), list[Finished]()
    for spec in task.specs:
        name, known = spec.model_id, spec.model_id in blocks
        if not known:
            started, binning = time.perf_counter(), grower.matrix_seconds
            blocks[name] = _grown(task, spec, grower, features)
            seconds[name] = time.perf_counter() - started - (grower.matrix_seconds - binning)
            cache.put(keys[name], blocks[name])
        finished.append(_finished(task, spec, known, seconds[name]))
        watch.tell(finished[-1])
    matrix_seconds = grower.matrix_seconds
    del grower  # the matrix's memory is free while the models predict
    started = time.perf_counter()
    predictions = _predict(task, blocks, features)
    predict_seconds = time.perf_counter() - started
    return Trained(blocks, predictions, seconds, matrix_seconds, predict_seconds, cached, tuple(finished))


def _grown(task: TrainTask, spec: ModelSpec, grower: Grower, features: Features) -> bytes:
    try:
        return grower(spec)
    except OutOfDeviceMemoryError as error:
        itemsize = np.dtype(features.store.dtype).itemsize
        needed = task.learner.bytes_needed(task.rows, len(spec.columns), itemsize)
        raise OutOfDeviceMemoryError(
            f"{task.label} needs about {needed / 1e9:.2f} GB on {task.learner.device} ({task.rows:,} rows x "
            f"{len(spec.columns):,} features): {error}; train on fewer eras (zoo.window, zoo.every), fewer models at a "
            'time (compute.workers), or spread it over a cluster (compute.booster_spans = "cluster")'
        ) from error


def _finished(task: TrainTask, spec: ModelSpec, cached: bool, seconds: float) -> Finished:
    return Finished(
        task.label, spec.model_id, task.train_last, cached, seconds, task.rows, len(spec.columns), task.trees,
        task.learner.device,
    )  # fmt: skip


class _OneMatrix:
    """Grows every model of a task on one matrix, built when the first model needs it and relabelled for the others."""

    def __init__(self, task: TrainTask, features: Features, watch: Watch) -> None:
        self._task, self._features, self._watch = task, features, watch
        self._matrix: Any = None
        self.matrix_seconds = 0.0

    def __call__(self, spec: ModelSpec) -> bytes:
        task, features = self._task, self._features
        if self._matrix is None:
            started = time.perf_counter()
            self._matrix = self._build()
            self.matrix_seconds = time.perf_counter() - started
        eras = (task.train_first, task.train_last)
        hidden = task.hidden.get(spec.target, ())
        return task.learner.fit(
            self._matrix,
            features.labels(spec.target, *eras, every=task.every, hidden=hidden),
            row_weights(task, features.era_of_rows(*eras, every=task.every)),
            trees=task.trees,
            seed=derive_seed(task.seed, spec.model_id, task.train_last),
            stop=self._watch,
        )

    def _build(self) -> Any:
        task = self._task
        where = task.specs[0].columns, task.train_first, task.train_last
        if task.learner.device == "cpu":
            return task.learner.matrix(self._features.table(*where, every=task.every))
        return task.learner.matrix(self._features.device_table(*where, every=task.every))


def row_weights(task: TrainTask, era_N: NDArray[np.int64]) -> FloatArray | None:
    """Weights of rows of these eras, float32 [N]; None where all are equal."""
    return era_weights(era_N, task.train_last, task.half_life)


def era_weights(era_N: NDArray[np.int64], newest: int, half_life: float) -> FloatArray | None:
    """Row weights [N] that halve every `half_life` eras before `newest`; None for equal weights (0)."""
    if not half_life:
        return None
    return np.exp2((era_N - newest) / half_life).astype(np.float32)


def _predict(task: TrainTask, blocks: Mapping[str, bytes], features: Features) -> dict[str, FloatArray]:
    if task.predict_last < task.predict_first:
        return {}
    boosters = {spec.model_id: load_booster(blocks[spec.model_id]) for spec in task.specs}
    found: dict[str, list[FloatArray]] = {name: [] for name in boosters}
    for era in features.eras(task.predict_first, task.predict_last):
        values = features.era(era, task.specs[0].columns).values
        for name, booster in boosters.items():
            found[name].append(predict([booster], values))
    return {name: np.concatenate(parts) if parts else np.zeros(0, np.float32) for name, parts in found.items()}


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
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
