"""Updates of the zoo during the loop: refits, trees appended on cached margins, re-estimated leaf values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.backend.choice import backend_of
from eravane.backend.protocol import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.timeline import Timeline
from eravane.core.arrays import Values
from eravane.core.config import PrepareConfig, RunConfig
from eravane.core.errors import ConfigError
from eravane.core.seeds import derive_seed
from eravane.data.features import Features
from eravane.learners.forest import Predictor
from eravane.learners.protocol import GROW_XGBOOST, Learner
from eravane.learners.registry import Trees
from eravane.learners.xgboost import quantile_matrix
from eravane.loop.margins import Margins
from eravane.loop.refresh import check_refreshable, refresh
from eravane.zoo.executor import run_tasks
from eravane.zoo.fleet import TaskControl
from eravane.zoo.residual import labels_of
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import era_weights

APPEND_ERAS = 40  # newest eras that appended trees are grown on
MOST_BLOCKS = 20  # appended blocks kept before the oldest is dropped: predictions stay as fast as they were
LEAVES_HALF_LIFE = 24.0  # eras after which half of a leaf's value comes from newer eras
PAST_WINDOWS = 4  # windows of eras before the one trained on in which a refitted model is scored: the cost stays flat


@dataclass(frozen=True)
class Model:
    """A base model between two updates: its trees, and their outputs on the window that the next ones grow on."""

    trees: Trees
    margins: Margins = Margins({})


@dataclass(frozen=True)
class UpdateTask:
    """The models of one cell that are updated on the same eras, with one matrix.

    Attributes:
        store, prepare: path of the features, and their preparation.
        specs, models: the models to update, in the same order.
        first, last: eras of the window, inclusive.
        hidden: target -> eras of the window whose labels are not to be seen.
        half_life: of the era weights, eras (0: equal weights).
        learner: grows the trees.
        seeds: of this update, one per model.
    """

    store: Path
    prepare: PrepareConfig
    specs: tuple[ModelSpec, ...]
    models: tuple[Model, ...]
    first: int
    last: int
    hidden: Mapping[str, tuple[int, ...]]
    half_life: float
    learner: Learner
    seeds: tuple[int, ...]

    def matrix(self, features: Features) -> Any:
        """The window's rows, binned."""
        columns = self.specs[0].columns
        return self.learner.matrix(features.table(columns, self.first, self.last))

    def labels(self, features: Features, spec: ModelSpec) -> NDArray[np.float32]:
        """Labels of the window that the model may see, float32 [N]."""
        return labels_of(features, spec, self.first, self.last, hidden=self.hidden.get(spec.target, ()))

    def weights(self, features: Features) -> NDArray[np.float32] | None:
        """Weights of the window's rows."""
        return era_weights(features.era_of_rows(self.first, self.last), self.last, self.half_life)


@dataclass(frozen=True)
class AppendTask(UpdateTask):
    """Grow trees on the residuals of the models.

    Attributes:
        rounds: trees to append.
        blocks: appended blocks kept; beyond it the oldest one is dropped.
    """

    rounds: int
    blocks: int


@dataclass(frozen=True)
class RefreshTask(UpdateTask):
    """Re-estimate leaf values.

    Attributes:
        keep: share of the old value that is kept.
        binned: whether floats are binned anew before leaves are looked for, as runs of edition 1 do.
    """

    keep: float
    binned: bool = False

    def values(self, features: Features, backend: Backend) -> Values:
        """The window's rows, [C, N] where they lie."""
        columns = self.specs[0].columns
        if not self.binned or features.store.dtype == "int8":
            return features.values(columns, self.first, self.last)
        data = quantile_matrix(features.table(columns, self.first, self.last), self.learner.params).get_data()
        values_NC = np.full(data.shape, np.nan, dtype=np.float32)
        values_NC[np.repeat(np.arange(len(values_NC)), np.diff(data.indptr)), data.indices] = data.data
        values_CN: Values = backend.to_device(np.ascontiguousarray(values_NC.T))
        return values_CN


def append(task: AppendTask, control: TaskControl | None = None) -> tuple[Model, ...]:
    """Grow a block of trees for every model of a task.

    Raises:
        RunError: no row of the window has a label.
        TrainingInterruptedError: the caller cancelled.
    """
    features = Features.open(task.store, task.prepare, backend_of(task.learner.device))
    columns, eras = task.specs[0].columns, features.eras(task.first, task.last)
    matrix = task.matrix(features)
    values_of = cache(lambda era: features.era(era, columns).values)
    grown: list[Model] = []
    for spec, model, seed in zip(task.specs, task.models, task.seeds, strict=True):
        boosters = [Predictor(block) for block in model.trees.blocks]
        margins = model.margins.over(eras, boosters, values_of)
        block = task.learner.fit(
            matrix,
            task.labels(features, spec),
            task.weights(features),
            trees=task.rounds,
            seed=seed,
            margin_N=margins.joined(),
            stop=control,
        )
        margins = margins.plus(Predictor(block), values_of)
        first, *appended = [*model.trees.blocks, block]
        while len(appended) > task.blocks:
            margins = margins.minus(Predictor(appended.pop(0)), values_of)
        grown.append(Model(Trees((first, *appended), columns), margins))
    return tuple(grown)


def renew_leaves(task: RefreshTask, control: TaskControl | None = None) -> tuple[Model, ...]:
    """Re-estimate the leaf values of every model of a task; their margins are void afterwards.

    Raises:
        TrainingInterruptedError: the caller cancelled.
    """
    backend = backend_of(task.learner.device)
    features = Features.open(task.store, task.prepare, backend)
    blocks = refresh(
        [model.trees.blocks for model in task.models],
        task.values(features, backend),
        np.stack([task.labels(features, spec) for spec in task.specs]),
        task.weights(features),
        params=task.learner.params,
        keep=task.keep,
        kernels=backend.kernels,
        stop=control,
    )
    return tuple(Model(Trees(own, spec.columns)) for own, spec in zip(blocks, task.specs, strict=True))


def eras_before(first: int, window: int, purge: int) -> range:
    """Eras before a training window in which a refitted model is scored; none without a window.

    Labels there overlap with none of the training's, by the purge.

    Args:
        first: first era that it was trained on; window: eras of the window (0: all eras); purge: eras left out.
    """
    return range(first - purge - PAST_WINDOWS * window, first - purge)


class Updater:
    """Updates base models on schedule, with labels that trees may see at that era and no others.

    Args:
        store: path of the store.
        config: the run's configuration.
        timeline: the run's periods.
        zoo: trains refits.
        known_at: labels that arrived later than the lags.

    Raises:
        ConfigError: leaf values cannot be re-estimated under these parameters.
    """

    def __init__(
        self,
        store: Path,
        config: RunConfig,
        timeline: Timeline,
        zoo: Zoo,
        known_at: KnownAt = KnownAt(),  # noqa: B008
        *,
        append_eras: int = APPEND_ERAS,
        most_blocks: int = MOST_BLOCKS,
        leaves_half_life: float = LEAVES_HALF_LIFE,
        binned: bool = False,
    ) -> None:
        self._append_eras, self._most_blocks, self._leaves_half_life = append_eras, most_blocks, leaves_half_life
        self._binned = binned
        self._store, self._config, self._timeline, self._zoo, self._known_at = store, config, timeline, zoo, known_at
        xgboost = zoo.learner.name in GROW_XGBOOST
        self._leaves = config.loop.update == "leaves" or (config.loop.update == "refit+leaves" and xgboost)
        if config.loop.update in ("append", "leaves") and not xgboost:
            raise ConfigError(
                f'loop.update "{config.loop.update}" needs zoo.learner "xgboost" or "levels", given '
                f'{zoo.learner.name!r}; use "refit" or "none"'
            )
        if self._leaves:
            check_refreshable(zoo.learner.params)

    def due(self, era: int) -> str:
        """How models are updated before `era` is predicted: "refit", "append", "leaves", or "" for not at all."""
        loop, since = self._config.loop, era - self._timeline.loop_start
        if since <= 0 or loop.update == "none":
            return ""
        if loop.update != "leaves" and since % loop.every == 0:
            return "append" if loop.update == "append" else "refit"
        return "leaves" if self._leaves and since % loop.leaves_every == 0 else ""

    def eras_before(self, spec: ModelSpec, era: int) -> range:
        """Eras before the window of a model that is refitted for `era`, as far as it is scored there.

        Empty for a model of a residual target: the benchmark that is taken out of its labels may have been trained on
        those eras.
        """
        if spec.outside or spec.residual:
            return range(0)
        first = self._zoo.trained_from(era - self._timeline.tree_lags[spec.target])
        return eras_before(first, self._config.zoo.window, self._timeline.clock.purge)

    def update(self, specs: Sequence[ModelSpec], models: Mapping[str, Model], era: int) -> dict[str, Model]:
        """Update the models of `specs` as is due at `era`; the others, and members from outside, stay as they are."""
        specs = [spec for spec in specs if not spec.outside]
        kind = self.due(era)
        if kind == "refit":
            return {**models, **self._refit(specs, era)}
        if kind == "append":
            return {**models, **self._run(append, self._append_tasks(specs, models, era))}
        return {**models, **self._run(renew_leaves, self._refresh_tasks(specs, models, era))}

    def _refit(self, specs: Sequence[ModelSpec], era: int) -> dict[str, Model]:
        half_life = self._config.loop.half_life
        tasks = [
            replace(task, half_life=half_life, hidden=self._hidden(task.specs, task.train_first, task.train_last, era))
            for task in self._zoo.start_tasks(specs, era)
        ]
        blocks = {name: block for _, trained in self._zoo.run(tasks) for name, block in trained.blocks.items()}
        return {spec.model_id: Model(Trees((blocks[spec.model_id],), spec.columns)) for spec in specs}

    def _run(self, function: Callable[[Any, Any], tuple[Model, ...]], tasks: Sequence[UpdateTask]) -> dict[str, Model]:
        updated: dict[str, Model] = {}
        zoo, scheduler = self._zoo, self._config.compute.scheduler
        for task, models in run_tasks(function, tasks, workers=zoo.workers, scheduler=scheduler, reporter=zoo.reporter):
            updated |= {spec.model_id: model for spec, model in zip(task.specs, models, strict=True)}
        return updated

    def _append_tasks(self, specs: Sequence[ModelSpec], models: Mapping[str, Model], era: int) -> list[AppendTask]:
        loop = self._config.loop
        return [
            AppendTask(**shared, rounds=loop.append_trees, blocks=self._most_blocks)
            for shared in self._shared(specs, models, era, self._append_eras, "append")
        ]

    def _refresh_tasks(self, specs: Sequence[ModelSpec], models: Mapping[str, Model], era: int) -> list[RefreshTask]:
        loop = self._config.loop
        keep = 2.0 ** (-loop.leaves_every / self._leaves_half_life)
        return [
            RefreshTask(**shared, keep=keep, binned=self._binned)
            for shared in self._shared(specs, models, era, loop.leaves_every, "leaves")
        ]

    def _shared(
        self, specs: Sequence[ModelSpec], models: Mapping[str, Model], era: int, window: int, kind: str
    ) -> list[dict[str, Any]]:
        """Common parts of an update's tasks, one per cell and tree lag, the widest cell first."""
        found: list[dict[str, Any]] = []
        for lag, group in self._zoo.by_matrix(specs):
            last = era - lag
            first = max(self._timeline.first_era, last - window + 1)
            found.append(
                {
                    "store": self._store,
                    "prepare": self._config.prepare,
                    "specs": group,
                    "models": tuple(models[spec.model_id] for spec in group),
                    "first": first,
                    "last": last,
                    "hidden": self._hidden(group, first, last, era),
                    "half_life": self._config.loop.half_life,
                    "learner": self._zoo.learner,
                    "seeds": tuple(derive_seed(self._config.seed, spec.model_id, kind, era) for spec in group),
                }
            )
        return sorted(found, key=lambda shared: -len(shared["specs"][0].columns) * len(shared["specs"]))

    def _hidden(self, specs: Sequence[ModelSpec], first: int, last: int, era: int) -> dict[str, tuple[int, ...]]:
        targets = {spec.target for spec in specs}
        found = {target: self._known_at.hidden(target, era, range(first, last + 1)) for target in sorted(targets)}
        return {target: eras for target, eras in found.items() if eras}
