"""The base models: one per feature set, feature group, target and seed, trained in purged walk-forward folds."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from eravane.catalog import FeatureCatalog
from eravane.config import PrepareConfig, RunConfig
from eravane.eras import EraIndex
from eravane.features import Features
from eravane.fleet import run_tasks
from eravane.folds import Fold
from eravane.seeds import derive_seed
from eravane.timeline import Timeline
from eravane.trees import Trees, fit, load_booster, predict, quantile_matrix, resolve_params

logger = logging.getLogger("eravane")

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ModelSpec:
    """What a base model is, before it is fitted.

    Attributes:
        feature_set, group: its cell.
        target: column it is trained on.
        seed: number of the seed, from 0.
        columns: its features.
    """

    feature_set: str
    group: str
    target: str
    seed: int
    columns: tuple[str, ...] = field(repr=False)

    @property
    def model_id(self) -> str:
        """Name of the model in every file: set.group.target.seed."""
        return f"{self.feature_set}.{self.group}.{self.target.removeprefix('target_')}.{self.seed}"


def model_specs(catalog: FeatureCatalog, config: RunConfig) -> list[ModelSpec]:
    """Every base model of a run, cell by cell, target by target, seed by seed."""
    cells = catalog.cells(leave_one_out=config.data.leave_one_group_out)
    return [
        ModelSpec(cell.feature_set, cell.group, target, seed, cell.columns)
        for cell in cells
        for target in config.targets
        for seed in range(config.zoo.seeds)
    ]


@dataclass(frozen=True)
class TrainTask:
    """The models of one cell that share training eras, and the eras they predict.

    Attributes:
        store: path of the store; workers open it themselves.
        specs: models with the same columns.
        train_first, train_last: training eras, inclusive.
        predict_first, predict_last: eras to predict, inclusive; none where last < first.
        every, half_life, trees, params: as in ZooConfig; params are resolved.
        seed: the run's seed.
        cache: folder of finished boosters, or None.
    """

    store: Path
    prepare: PrepareConfig
    specs: tuple[ModelSpec, ...]
    train_first: int
    train_last: int
    predict_first: int
    predict_last: int
    every: int
    half_life: float
    trees: int
    params: Mapping[str, Any]
    seed: int
    cache: Path | None

    @property
    def cost(self) -> int:
        """Work in columns x eras x models, to start the longest first."""
        return len(self.specs[0].columns) * (self.train_last - self.train_first + 1) * len(self.specs)


@dataclass(frozen=True)
class Trained:
    """What a task gives back: per model its booster and its predictions."""

    blocks: Mapping[str, bytes]
    predictions: Mapping[str, FloatArray]
    seconds: Mapping[str, float]
    cached: int


class BoosterCache:
    """Finished boosters on disk, named by everything that decides them; shared by all runs.

    Args:
        folder: where they lie; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> bytes | None:
        """A booster, or None where it is not there or damaged (which is logged)."""
        if self._folder is None:
            return None
        path = self._folder / f"{key}.ubj"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        digest, block = content[:32], content[32:]
        if hashlib.sha256(block).digest() != digest:
            logger.warning("zoo cache entry %s is damaged and is trained again", path.name)
            return None
        return block

    def put(self, key: str, block: bytes) -> None:
        """Store a booster; a reader sees the whole file or none."""
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{key}.{os.getpid()}.{threading.get_ident()}"
        temporary.write_bytes(hashlib.sha256(block).digest() + block)
        temporary.replace(self._folder / f"{key}.ubj")


def train(task: TrainTask, stop: threading.Event | None = None) -> Trained:
    """Fit and apply the models of one task; boosters found in the cache are not trained again.

    Raises:
        RunError: a target has no label in the training eras.
        TrainingInterruptedError: `stop` was set.
    """
    features = Features.open(task.store, task.prepare)
    keys = {spec.model_id: _cache_key(task, spec, features) for spec in task.specs}
    cache = BoosterCache(task.cache)
    blocks = {name: block for name, key in keys.items() if (block := cache.get(key)) is not None}
    cached, seconds = len(blocks), dict.fromkeys(keys, 0.0)
    missing = [spec for spec in task.specs if spec.model_id not in blocks]
    matrix = None
    for spec in missing:
        started = time.perf_counter()
        matrix = matrix or _matrix(task, features)
        blocks[spec.model_id] = _fit(task, spec, features, matrix, stop)
        cache.put(keys[spec.model_id], blocks[spec.model_id])
        seconds[spec.model_id] = time.perf_counter() - started
    return Trained(blocks, _predict(task, blocks, features), seconds, cached)


def _matrix(task: TrainTask, features: Features) -> xgb.QuantileDMatrix:
    table = features.table(task.specs[0].columns, task.train_first, task.train_last, every=task.every)
    return quantile_matrix(table, task.params)


def _fit(
    task: TrainTask,
    spec: ModelSpec,
    features: Features,
    matrix: xgb.QuantileDMatrix,
    stop: threading.Event | None,
) -> bytes:
    eras = (task.train_first, task.train_last)
    return fit(
        matrix,
        features.labels(spec.target, *eras, every=task.every),
        era_weights(features.era_of_rows(*eras, every=task.every), task.train_last, task.half_life),
        trees=task.trees,
        params=task.params,
        seed=derive_seed(task.seed, spec.model_id, task.train_last),
        stop=stop,
    )


def era_weights(era_N: NDArray[np.int64], newest: int, half_life: float) -> FloatArray | None:
    """Row weights [N] that halve every `half_life` eras before `newest`; None for equal weights (0)."""
    if not half_life:
        return None
    return np.exp2((era_N - newest) / half_life).astype(np.float32)


def _predict(task: TrainTask, blocks: Mapping[str, bytes], features: Features) -> dict[str, FloatArray]:
    boosters = {spec.model_id: load_booster(blocks[spec.model_id]) for spec in task.specs}
    found: dict[str, list[FloatArray]] = {name: [] for name in boosters}
    for era in features.eras(task.predict_first, task.predict_last):
        values = features.era(era, task.specs[0].columns).values
        for name, booster in boosters.items():
            found[name].append(predict([booster], values))
    return {name: np.concatenate(parts) if parts else np.zeros(0, np.float32) for name, parts in found.items()}


def _cache_key(task: TrainTask, spec: ModelSpec, features: Features) -> str:
    window = features.needed(task.train_first), task.train_last
    content = {
        "data": features.store.digest(*window, spec.columns, (spec.target,)),
        "prepare": asdict(task.prepare),
        "model": spec.model_id,
        "eras": [task.train_first, task.train_last, task.every],
        "half_life": task.half_life,
        "trees": task.trees,
        "params": dict(task.params),
        "seed": task.seed,
        "xgboost": xgb.__version__,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


class Zoo:
    """Trains base models on eras of one store.

    Args:
        store: path of the store.
        config: the run's configuration.
        timeline: the run's periods.
        xgboost_device: "cpu" or "cuda".
        cache: folder of finished boosters, shared by runs; None keeps none.

    Attributes:
        params: resolved XGBoost parameters.
        notes: translations of parameters, to be said once.
    """

    def __init__(
        self, store: Path, config: RunConfig, timeline: Timeline, *, xgboost_device: str, cache: Path | None
    ) -> None:
        self._store, self._config, self._timeline, self._cache = store, config, timeline, cache
        self.params, self.notes = resolve_params(config.zoo.params, xgboost_device)

    def fold_tasks(self, specs: Sequence[ModelSpec]) -> list[TrainTask]:
        """Tasks that train every model on every fold and predict the fold's eras."""
        return [
            self._task(group, fold.train_last_at(lag), fold.predict_first, fold.predict_last)
            for fold in self._timeline.folds
            for lag, group in self._by_matrix(specs)
        ]

    def start_tasks(self, specs: Sequence[ModelSpec], era: int, window: int = 0) -> list[TrainTask]:
        """Tasks that train models on the labels that trees may see when they predict `era`.

        Args:
            specs: models to train.
            era: first era they will predict.
            window: newest eras to train on (0: as `zoo.window` says).
        """
        return [self._task(group, era - lag, 0, -1, window) for lag, group in self._by_matrix(specs)]

    def run(
        self, tasks: Sequence[TrainTask], on_done: Callable[[TrainTask, Trained], None] | None = None
    ) -> dict[tuple[str, int], Trained]:
        """Run tasks, the longest first; results by (first model id, newest training era)."""
        compute = self._config.compute
        ordered = sorted(tasks, key=lambda task: -task.cost)
        results: dict[tuple[str, int], Trained] = {}
        for task, trained in run_tasks(train, ordered, workers=compute.workers, scheduler=compute.scheduler):
            results[task.specs[0].model_id, task.train_last] = trained
            if on_done is not None:
                on_done(task, trained)
        return results

    def _by_matrix(self, specs: Sequence[ModelSpec]) -> list[tuple[int, tuple[ModelSpec, ...]]]:
        lags = self._timeline.tree_lags

        def matrix(spec: ModelSpec) -> tuple[str, str, int]:
            return spec.feature_set, spec.group, lags[spec.target]

        return [(key[2], tuple(group)) for key, group in groupby(sorted(specs, key=matrix), key=matrix)]

    def _task(
        self, specs: tuple[ModelSpec, ...], train_last: int, predict_first: int, predict_last: int, window: int = 0
    ) -> TrainTask:
        zoo, first = self._config.zoo, self._timeline.first_era
        window = window or zoo.window
        return TrainTask(
            store=self._store,
            prepare=self._config.prepare,
            specs=specs,
            train_first=max(first, train_last - window + 1) if window else first,
            train_last=train_last,
            predict_first=predict_first,
            predict_last=predict_last,
            every=zoo.every,
            half_life=zoo.half_life,
            trees=zoo.trees,
            params=self.params,
            seed=self._config.seed,
            cache=self._cache,
        )


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold predictions of every model.

    Attributes:
        first_era, last_era: eras covered, inclusive.
        values: model id -> float32 [N], rows of those eras in store order.
        seconds: model id -> training seconds over all folds.
    """

    first_era: int
    last_era: int
    values: Mapping[str, FloatArray]
    seconds: Mapping[str, float]

    def era(self, index: EraIndex, era: int, model_ids: Sequence[str] = ()) -> FloatArray:
        """Predictions of one era, float32 [M, N].

        Args:
            index: of the eras first_era..last_era.
            era: era number.
            model_ids: which models (none named: all).
        """
        rows = index.rows_of(era)
        return np.stack([self.values[name][rows] for name in model_ids or self.values])


def out_of_fold(
    zoo: Zoo,
    specs: Sequence[ModelSpec],
    folds: Sequence[Fold],
    on_done: Callable[[TrainTask, Trained], None] | None = None,
) -> OutOfFold:
    """Train every model on every fold and join its predictions in era order."""
    tasks = zoo.fold_tasks(specs)
    results = zoo.run(tasks, on_done)
    parts: dict[str, dict[int, FloatArray]] = {spec.model_id: {} for spec in specs}
    seconds = dict.fromkeys(parts, 0.0)
    for task in tasks:
        trained = results[task.specs[0].model_id, task.train_last]
        for name, values in trained.predictions.items():
            parts[name][task.predict_first] = values
            seconds[name] += trained.seconds[name]
    joined = {name: np.concatenate([found[key] for key in sorted(found)]) for name, found in parts.items()}
    return OutOfFold(folds[0].predict_first, folds[-1].predict_last, joined, seconds)


def start_models(
    zoo: Zoo,
    specs: Sequence[ModelSpec],
    era: int,
    on_done: Callable[[TrainTask, Trained], None] | None = None,
    window: int = 0,
) -> dict[str, Trees]:
    """Models that may predict `era`: fitted on the labels trees may see then, of the newest `window` eras (0: all)."""
    results = zoo.run(zoo.start_tasks(specs, era, window), on_done)
    blocks = {name: block for trained in results.values() for name, block in trained.blocks.items()}
    return {spec.model_id: Trees((blocks[spec.model_id],), spec.columns) for spec in specs}
