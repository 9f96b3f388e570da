"""Trains the base models of a run: in purged walk-forward folds, and for the first era of the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

from eravane.config import RunConfig
from eravane.timeline import Timeline
from eravane.zoo.fleet import run_tasks
from eravane.zoo.specs import ModelSpec
from eravane.zoo.training import Trained, TrainTask, train
from eravane.zoo.trees import Trees, resolve_params


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
