"""One booster over a whole cluster: rows are distributed, histograms are summed between them (xgboost.dask)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from eravane.backend import choose
from eravane.core.errors import RunError
from eravane.core.seeds import derive_seed
from eravane.core.telemetry import UsageReporter
from eravane.data.features import Features
from eravane.zoo.cluster import connect, sampled, workers_of
from eravane.zoo.fleet import News, TaskControl
from eravane.zoo.residual import labels_of
from eravane.zoo.specs import ModelSpec
from eravane.zoo.training import Trained, TrainTask, row_weights, train

if TYPE_CHECKING:
    from distributed import Client

# Share of a worker's memory that one matrix may fill before it is distributed.
FILL = 0.8
# Bins of levels, of which there are six: the cuts, and so the trees, are those of any larger number. At 256 XGBoost's
# sketch takes half a megabyte a column (measured 11.4 bytes a cell of 50,000 rows, and 0.1 at 16).
LEVEL_BINS = 16


def worker_room(scheduler: str, device: str) -> int:
    """Bytes that the smallest worker of a cluster can give a matrix; 0 where workers have no limit.

    Raises:
        RunError: no scheduler answers, or it has no workers.
    """
    with connect(scheduler) as client:
        found = [worker["memory_limit"] for worker in workers_of(client).values()]
        if device != "cpu":
            found = list(client.run(_gpu_room).values())
    return int(FILL * min(found))


def _gpu_room() -> int:
    return choose("cuda", lambda _: None).room()


def train_on_cluster(
    task: TrainTask, scheduler: str, on_model: News | None, reporter: UsageReporter | None = None
) -> Trained:
    """Fit and apply the models of one task with all workers at once, one model after the other.

    Sums over several workers round differently from sums on one, so such models are cached under names of their own
    that contain the number of workers.

    Args:
        task: what to train.
        scheduler: address of the cluster.
        on_model: called with every finished model.
        reporter: receives the resources that every worker used.

    Raises:
        RunError: the learner is not XGBoost, no scheduler answers, or a worker dies.
        DeviceError: the requested device was not used.
    """
    if task.learner.name != "xgboost":
        raise RunError(f'compute.booster_spans = "cluster" needs zoo.learner "xgboost", given {task.learner.name!r}')
    with connect(scheduler) as client, client.as_current():
        spread = dataclasses.replace(task, spread=len(workers_of(client)))
        grower = _Grower(client, spread, era_ranges(spread))
        with sampled(client, task.label, reporter):
            return train(spread, TaskControl(report=on_model), grower)


class _Grower:
    """Grows models on matrices whose rows are distributed to the workers.

    Args:
        client: of the cluster.
        task: what to train.
        ranges: eras (first, last) of each part.
    """

    matrix_seconds = 0.0

    def __init__(self, client: Client, task: TrainTask, ranges: Sequence[tuple[int, int]]) -> None:
        self._client, self._task, self._ranges = client, task, ranges
        self._features = Features.open(task.store, task.prepare)

    def __call__(self, specs: Sequence[ModelSpec]) -> list[bytes]:
        return [self._grown(spec) for spec in specs]

    def _grown(self, spec: ModelSpec) -> bytes:
        from xgboost import dask as xgb_dask

        from eravane.learners.xgboost import check_device

        params = dict(self._task.learner.params)
        if self._features.store.dtype == "int8":
            params["max_bin"] = min(params["max_bin"], LEVEL_BINS)
        x_NC, label_N, weight_N = self._arrays(spec)
        try:
            matrix = xgb_dask.DaskQuantileDMatrix(
                self._client, x_NC, label_N, weight=weight_N, max_bin=params["max_bin"]
            )
            seed = derive_seed(self._task.seed, spec.model_id, self._task.train_last)
            found = xgb_dask.train(self._client, {**params, "seed": seed}, matrix, num_boost_round=self._task.trees)
        except (OSError, RuntimeError) as error:
            raise RunError(f"training {spec.model_id} over the cluster failed: {error}") from error
        check_device(found["booster"], params["device"])
        return bytes(found["booster"].save_raw("ubj"))

    def _arrays(self, spec: ModelSpec) -> tuple[Any, Any, Any]:
        """Features [N, C], labels [N] and weights [N] as Dask arrays, one chunk per range of eras."""
        import dask.array as da
        from dask import delayed

        width = len(self._features.era(self._ranges[0][0], spec.columns).columns)
        dtype = self._features.store.dtype
        parts = []
        for first, last in self._ranges:
            rows = int(self._features.store.index.select(first, last).counts[:: self._task.every].sum())
            x_nC, label_n, weight_n = delayed(part_of, nout=3)(self._task, spec, first, last)
            parts.append(
                (
                    da.from_delayed(x_nC, (rows, width), dtype),
                    da.from_delayed(label_n, (rows,), np.float32),
                    da.from_delayed(weight_n, (rows,), np.float32),
                )
            )
        features, labels, weights = zip(*parts, strict=True)
        return da.concatenate(features), da.concatenate(labels), da.concatenate(weights)


def era_ranges(task: TrainTask) -> list[tuple[int, int]]:
    """Training eras (first, last) of as many parts as the task has workers, of about the same number of eras.

    Every part but the last spans a multiple of `every` eras, so that every n-th era of each part is every n-th of all.
    """
    features = Features.open(task.store, task.prepare)
    eras = features.eras(task.train_first, task.train_last)
    used = range(0, len(eras), task.every)
    parts = [part for part in np.array_split(np.arange(len(used)), task.spread) if part.size]
    ends = [used[int(part[-1]) + 1] if int(part[-1]) + 1 < len(used) else len(eras) for part in parts]
    return [(eras[used[int(part[0])]], eras[end - 1]) for part, end in zip(parts, ends, strict=True)]


def part_of(
    task: TrainTask, spec: ModelSpec, first: int, last: int
) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """Rows of one part, read by a worker: features [n, C] on the device, labels and weights [n]."""
    features = Features.open(task.store, task.prepare)
    frames = [features.era(era, spec.columns).values for era in features.eras(first, last)[:: task.every]]
    x_nC = np.concatenate(frames, axis=1).T
    hidden = task.hidden.get(spec.target, ())
    label_n = labels_of(features, spec, first, last, every=task.every, hidden=hidden)
    known = ~np.isnan(label_n)
    weight_n = row_weights(task, features.era_of_rows(first, last, every=task.every))
    weight_n = known.astype(np.float32) if weight_n is None else np.where(known, weight_n, np.float32(0))
    label_n = np.where(known, label_n, np.float32(0))
    if task.learner.device == "cpu":
        return x_nC, label_n, weight_n
    backend = choose("cuda", lambda _: None)
    return backend.to_device(x_nC), label_n, weight_n
