"""Trains the base models of a run: in purged walk-forward folds, and for the first era of the loop."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from eravane.backend.protocol import Backend
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import RunError
from eravane.core.memory import cores
from eravane.core.telemetry import UsageReporter, WorkerUsage
from eravane.data.resident import Residence, residence, resident
from eravane.data.store.store import EraStore
from eravane.learners.choice import resolve_learner
from eravane.learners.forest import device_bytes
from eravane.learners.outside import BLOCK as OUTSIDE_BLOCK
from eravane.learners.registry import Trees, make_learner
from eravane.zoo.cluster import worker_count
from eravane.zoo.executor import run_tasks
from eravane.zoo.spanning import train_on_cluster, worker_room
from eravane.zoo.specs import ModelSpec
from eravane.zoo.training import Finished, Trained, TrainTask, train, train_to_predict

# A task is split while it is longer than this share of a worker's fair load: then the last one ends early enough.
LONGEST_SHARE = 0.5
# Small models share a GPU: the host binds the next matrix while the device grows trees.
MODELS_PER_GPU = 2


class Zoo:
    """Trains base models on eras of one store.

    Args:
        store: path of the store.
        config: the run's configuration.
        timeline: the run's periods.
        xgboost_device: "cpu" or "cuda".
        cache: folder of finished boosters, shared by runs; None keeps none.
        memory_budget: bytes that models trained at the same time may hold on the device (0: no limit).
        on_usage: called with the resources that each task used on a Dask worker.

    Attributes:
        memory_budget: what of it tasks share.
        reporter: passes them on.
        learner: grows the trees.
        notes: translations of parameters, shown once.
    """

    def __init__(
        self,
        store: Path,
        config: RunConfig,
        timeline: Timeline,
        *,
        xgboost_device: str,
        cache: Path | None,
        memory_budget: int = 0,
        on_usage: Callable[[WorkerUsage], None] | None = None,
    ) -> None:
        self._store, self._timeline, self._cache = EraStore.open(store), timeline, cache
        self._config, _ = resolve_learner(config, self._store.dtype)
        config = self._config
        self.memory_budget = memory_budget
        self._worker_room: int | None = None
        self.learner, self.notes = make_learner(config.zoo, xgboost_device)
        self.reporter = None if on_usage is None else UsageReporter(self.learner.device != "cpu", on_usage)

    @property
    def workers(self) -> int:
        """Models trained at the same time."""
        compute = self._config.compute
        if compute.scheduler:
            return worker_count(compute.scheduler, self._store)
        if compute.workers:
            return compute.workers
        return cores() if self.learner.device == "cpu" else MODELS_PER_GPU

    def keep_features(self, backend: Backend, specs: Sequence[ModelSpec]) -> Residence:
        """Decide which features stay on a device, by what the largest task and the trees of the loop leave.

        Tasks share the rest of it.
        """
        trained = [spec for spec in specs if not spec.outside]
        tasks = self.fold_tasks(trained) + self.start_tasks(trained, self._timeline.last_era)
        widest = max((len(spec.columns) for spec in trained), default=1)
        chosen = min(self._config.selection.most, len(trained))
        predicting = device_bytes(self._config.zoo.trees * chosen, self.learner.params)
        training = max(map(self._bytes_needed, tasks), default=0) + predicting
        store, room = self._store, backend.room()
        kept = residence(store, backend.name, room, len(store.columns), widest, training)
        resident(store, backend, kept)
        if self.memory_budget:
            self.memory_budget = max(1, self.memory_budget - kept.bytes)
        return kept

    def fold_tasks(self, specs: Sequence[ModelSpec]) -> list[TrainTask]:
        """Tasks that train every model on every fold and predict the fold's eras."""
        return [
            self._task(group, fold.train_last_at(lag), fold.predict_first, fold.predict_last)
            for fold in self._timeline.folds
            for lag, group in self.by_matrix(specs)
        ]

    def start_tasks(self, specs: Sequence[ModelSpec], era: int) -> list[TrainTask]:
        """Tasks that train models on the labels that trees may see when they predict `era`."""
        return [self._task(group, era - lag, 0, -1) for lag, group in self.by_matrix(specs)]

    def by_matrix(self, specs: Sequence[ModelSpec]) -> list[tuple[int, tuple[ModelSpec, ...]]]:
        """Models that share a cell and a tree lag, and so a training matrix, each group after its lag."""
        lags = self._timeline.tree_lags

        def matrix(spec: ModelSpec) -> tuple[str, str, int]:
            return spec.feature_set, spec.group, lags[spec.target]

        trained = sorted((spec for spec in specs if not spec.outside), key=matrix)
        return [(key[2], tuple(group)) for key, group in groupby(trained, key=matrix)]

    def run(
        self,
        tasks: Sequence[TrainTask],
        on_model: Callable[[Finished], None] | None = None,
        *,
        keep: bool = True,
    ) -> Iterator[tuple[TrainTask, Trained]]:
        """Run tasks, the longest first; a long one may come back in parts, each with some of its models.

        Args:
            tasks: from `fold_tasks` or `start_tasks`.
            on_model: called in this thread when a model is done.
            keep: whether boosters come back; predictions do in any case, and need not wait for boosters to travel.

        Raises:
            RunError: a target has no label in the training eras of a task; nothing is trained then.
        """
        for task in tasks:
            self._require_labels(task)
        scheduler, report, workers = self._config.compute.scheduler, _Once(on_model), self.workers
        wide, narrow = list[TrainTask](), list[TrainTask]()
        for task in tasks:
            (wide if scheduler and self._spans_cluster(task) else narrow).append(task)
        for task in wide:
            yield task, train_on_cluster(task, scheduler, report, self.reporter)
        for task, trained in run_tasks(
            train if keep else train_to_predict,
            balanced(narrow, workers),
            workers=workers,
            scheduler=scheduler,
            on_news=report,
            size_of=self._bytes_needed,
            capacity=self.memory_budget,
            reporter=self.reporter,
            cost_of=lambda task: task.cost,
        ):
            for done in trained.finished:
                report(done)  # where the news are still on their way
            yield task, trained

    def _spans_cluster(self, task: TrainTask) -> bool:
        spans = self._config.compute.booster_spans
        if spans != "auto":
            return spans == "cluster"
        if self._worker_room is None:
            self._worker_room = worker_room(self._config.compute.scheduler, self.learner.device)
        return 0 < self._worker_room < self._bytes_needed(task)

    def _bytes_needed(self, task: TrainTask) -> int:
        return task.bytes_needed(np.dtype(self._store.dtype).itemsize)

    def _require_labels(self, task: TrainTask) -> None:
        for target in sorted({spec.target for spec in task.specs}):
            if np.isnan(self._store.target(target, task.train_first, task.train_last)).all():
                raise RunError(
                    f"target {target!r} has no label in eras {task.train_first} to {task.train_last}, on which "
                    f"{task.specs[0].feature_set}.{task.specs[0].group} is to be trained; take it out of zoo.targets, "
                    "or use newer eras (zoo.folds, data.first_era)"
                )

    def trained_from(self, train_last: int) -> int:
        """First era that models are trained on whose newest one is `train_last`."""
        first, window = self._timeline.first_era, self._config.zoo.window
        return max(first, train_last - window + 1) if window else first

    def _task(self, specs: tuple[ModelSpec, ...], train_last: int, predict_first: int, predict_last: int) -> TrainTask:
        zoo, train_first = self._config.zoo, self.trained_from(train_last)
        return TrainTask(
            store=self._store.path,
            prepare=self._config.prepare,
            specs=specs,
            train_first=train_first,
            train_last=train_last,
            predict_first=predict_first,
            predict_last=predict_last,
            rows=int(self._store.index.select(train_first, train_last).counts[:: zoo.every].sum()),
            every=zoo.every,
            half_life=zoo.half_life,
            trees=zoo.trees,
            learner=self.learner,
            seed=self._config.seed,
            cache=self._cache,
        )


class _Once:
    """Reports each model once: a task that runs again reports it twice."""

    def __init__(self, on_model: Callable[[Finished], None] | None) -> None:
        self._on_model, self._known = on_model, set[tuple[str, int]]()

    def __call__(self, done: Finished) -> None:
        key = done.model_id, done.train_last
        if self._on_model is not None and key not in self._known:
            self._known.add(key)
            self._on_model(done)


def balanced(tasks: Sequence[TrainTask], workers: int) -> list[TrainTask]:
    """Tasks in the order to start them, the longest first, long ones split where workers would wait for them.

    A split costs a second matrix; what a model is does not depend on it.
    """
    fair = LONGEST_SHARE * sum(task.cost for task in tasks) / workers
    number = itertools.count()  # breaks ties, in the order of the tasks
    queue = [(-task.cost, next(number), task) for task in tasks]
    heapq.heapify(queue)
    ready: list[tuple[int, int, TrainTask]] = []
    while queue:
        longest = heapq.heappop(queue)
        if workers > 1 and -longest[0] > fair and len(longest[2].specs) > 1:
            for half in longest[2].halves():
                heapq.heappush(queue, (-half.cost, next(number), half))
        else:
            ready.append(longest)
    return [task for _, _, task in sorted(ready, key=lambda entry: entry[:2])]


def start_models(
    zoo: Zoo, specs: Sequence[ModelSpec], era: int, on_model: Callable[[Finished], None] | None = None
) -> dict[str, Trees]:
    """Models that may predict `era`: fitted on the labels trees may see then."""
    blocks = {spec.model_id: OUTSIDE_BLOCK for spec in specs if spec.outside}
    for _, trained in zoo.run(zoo.start_tasks(specs, era), on_model):
        blocks |= trained.blocks
    return {spec.model_id: Trees((blocks[spec.model_id],), spec.columns) for spec in specs}
