"""Residual targets: labels of which a share of the benchmark model's predictions is taken out within each era."""

from __future__ import annotations

import hashlib
import io
import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Float32s
from eravane.core.config import RunConfig
from eravane.core.files import write_atomically
from eravane.data.features import Features
from eravane.data.store.store import EraStore
from eravane.zoo.outside import benchmark_values
from eravane.zoo.specs import ModelSpec


def with_benchmark(
    specs: Sequence[ModelSpec], config: RunConfig, data: Path, store: EraStore, cache: Path
) -> list[ModelSpec]:
    """The models with the file of the benchmark's predictions that their residual targets need; workers read it.

    Raises:
        ConfigError: the dataset has no benchmark model for the run's eras.
    """
    if not any(spec.residual for spec in specs):
        return list(specs)
    with io.BytesIO() as content:
        np.save(content, benchmark_values(config, data, store).astype(np.float32))
        block = content.getvalue()
    path = cache / "benchmarks" / f"{hashlib.sha256(block).hexdigest()[:16]}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, block)
    return [replace(spec, benchmark=str(path)) if spec.residual else spec for spec in specs]


def labels_of(
    features: Features, spec: ModelSpec, first: int, last: int, *, every: int = 1, hidden: Collection[int] = ()
) -> Float32s:
    """Labels that a model is trained on over every n-th era of first..last, float32 [N], NaN where not known."""
    labels_N = features.labels(spec.target, first, last, every=every, hidden=hidden)
    if not spec.residual:
        return labels_N
    era_N, all_N = features.era_of_rows(first, last, every=every), features.era_of_rows(first, last)
    return without_benchmark(labels_N, benchmark_of(features, spec, first, last)[np.isin(all_N, era_N)], era_N, spec)


def benchmark_of(features: Features, spec: ModelSpec, first: int, last: int) -> Float32s:
    """The benchmark's predictions of eras first..last, float32 [N], NaN where it has none."""
    values_N: Float32s = np.load(spec.benchmark, mmap_mode="r")[features.store.index.span(first, last)]
    return values_N


def without_benchmark(labels_N: Float32s, benchmark_N: Float32s, era_N: NDArray[np.int64], spec: ModelSpec) -> Float32s:
    """Labels less the share of them that a line in the benchmark's predictions of the same era explains.

    An era without the benchmark, or in which it is constant, keeps its labels, and so do rows that it lacks.
    """
    found_N = labels_N.copy()
    bounds = [0, *(np.flatnonzero(np.diff(era_N)) + 1), len(era_N)]
    for first, last in itertools.pairwise(bounds):
        y_n, x_n = labels_N[first:last].astype(np.float64), benchmark_N[first:last].astype(np.float64)
        known_n = np.isfinite(y_n) & np.isfinite(x_n)
        if not known_n.any():
            continue
        x_n = x_n[known_n] - x_n[known_n].mean()
        power = x_n @ x_n
        if power > 1e-12 * len(x_n):
            slope = x_n @ (y_n[known_n] - y_n[known_n].mean()) / power
            found_N[first:last][known_n] = (y_n[known_n] - spec.residual * slope * x_n).astype(np.float32)
    return found_N
