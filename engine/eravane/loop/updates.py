"""How base models follow new labels while the loop goes on: refits, or trees appended on the margin of the old ones."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eravane.config import PrepareConfig, RunConfig
from eravane.features import Features
from eravane.seeds import derive_seed
from eravane.timeline import Timeline
from eravane.zoo.fleet import run_tasks
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane.zoo.training import era_weights
from eravane.zoo.trees import Trees, fit, predict, quantile_matrix


@dataclass(frozen=True)
class AppendTask:
    """Trees to append to one model on a window of eras.

    Attributes:
        store, prepare: where the features are, and how they are prepared.
        spec, trees: the model and its blocks so far.
        first, last: eras of the window, inclusive.
        rounds: trees to append.
        blocks: appended blocks kept; beyond it the oldest appended one is dropped.
        half_life: of the era weights, eras.
        params: resolved XGBoost parameters.
        seed: of this call.
    """

    store: Path
    prepare: PrepareConfig
    spec: ModelSpec
    trees: Trees
    first: int
    last: int
    rounds: int
    blocks: int
    half_life: float
    params: Mapping[str, Any]
    seed: int


def append(task: AppendTask, stop: threading.Event | None = None) -> Trees:
    """Grow new trees on what the model leaves unexplained in the window.

    Raises:
        RunError: no row of the window has a label.
        TrainingInterruptedError: `stop` was set.
    """
    features = Features.open(task.store, task.prepare)
    eras = (task.first, task.last)
    boosters = task.trees.boosters()
    margins = [predict(boosters, features.era(era, task.spec.columns).values) for era in features.eras(*eras)]
    block = fit(
        quantile_matrix(features.table(task.spec.columns, *eras), task.params),
        features.labels(task.spec.target, *eras),
        era_weights(features.era_of_rows(*eras), task.last, task.half_life),
        trees=task.rounds,
        params=task.params,
        seed=task.seed,
        margin_N=np.concatenate(margins),
        stop=stop,
    )
    first, *appended = task.trees.blocks
    return Trees((first, *[*appended, block][-task.blocks :]), task.trees.columns)


class Updater:
    """Updates base models on schedule, with labels that trees may see at that era and no others.

    Args:
        store: path of the store.
        config: the run's configuration.
        timeline: the run's periods.
        zoo: trains refits.
    """

    def __init__(self, store: Path, config: RunConfig, timeline: Timeline, zoo: Zoo) -> None:
        self._store, self._config, self._timeline, self._zoo = store, config, timeline, zoo

    def due(self, era: int) -> bool:
        """Whether models are updated before `era` is predicted."""
        since = era - self._timeline.loop_start
        return self._config.loop.update != "none" and since > 0 and since % self._config.loop.every == 0

    def update(self, specs: Sequence[ModelSpec], models: Mapping[str, Trees], era: int) -> dict[str, Trees]:
        """Update the models of `specs`; the others stay as they are."""
        if self._config.loop.update == "refit":
            fitted = start_models(self._zoo, specs, era, window=self._config.loop.window)
        else:
            tasks = [self._append_task(spec, models[spec.model_id], era) for spec in specs]
            compute = self._config.compute
            done = run_tasks(append, tasks, workers=compute.workers, scheduler=compute.scheduler)
            fitted = {task.spec.model_id: trees for task, trees in done}
        return {**models, **fitted}

    def _append_task(self, spec: ModelSpec, trees: Trees, era: int) -> AppendTask:
        loop, last = self._config.loop, era - self._timeline.tree_lags[spec.target]
        first = self._timeline.first_era
        return AppendTask(
            store=self._store,
            prepare=self._config.prepare,
            spec=spec,
            trees=trees,
            first=max(first, last - loop.window + 1) if loop.window else first,
            last=last,
            rounds=loop.append_trees,
            blocks=loop.blocks,
            half_life=self._config.zoo.half_life,
            params=self._zoo.params,
            seed=derive_seed(self._config.seed, spec.model_id, "append", era),
        )
