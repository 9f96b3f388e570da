"""One task of the zoo: the models of a cell that share training eras, fitted on one matrix, and what they predict."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from eravane.config import PrepareConfig
from eravane.features import Features
from eravane.seeds import derive_seed
from eravane.zoo.cache import BoosterCache
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trees import fit, load_booster, predict, quantile_matrix

FloatArray = NDArray[np.float32]


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
