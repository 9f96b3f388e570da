"""Ranks and correlations within the era on the device.

Formulas as in `eravane_kernels.spec.cross_section`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash
from scipy.special import ndtri

from eravane_kernels import checks
from eravane_kernels.arrays import Bools, Double, Floats, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.inputs import Array, stride
from eravane_kernels.cuda.launch import FINITE, Runs, launch, room, runs
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.cross_section import powered_label

Transform = Callable[[Double], Double]

KEYS: dict[str, type[np.unsignedinteger[Any]]] = {"float32": np.uint32, "float64": np.uint64}
"""What predictions of each dtype are sorted as."""
SUFFIX = {"float32": "float", "float64": "double"}
"""Of the kernels for each dtype of predictions."""
LABELS_HELD = 4
"""Label arrays whose powers stay on the device: 8 bytes a row each."""


def rank(p_MN: Array, offsets_E1: Integers) -> Array:
    """Tie-kept rank within the era, `(average rank - 0.5) / n`, in (0, 1), by cu/rank.cu.

    p_MN: float32 or float64, finite. Returns float64 [M, N].
    Raises: ValueError for other dtypes, strides or offsets, and for NaN or an infinity, naming column and row.
    """
    return _ranked(p_MN, offsets_E1, _same)


def gaussianize(p_MN: Array, offsets_E1: Integers) -> Array:
    """Normal quantile of the tie-kept rank within the era. Arguments and errors as `rank`; float64 [M, N]."""
    return _ranked(p_MN, offsets_E1, _gauss)


def _ranked(p_MN: Array, offsets_E1: Integers, transform: Transform) -> Array:
    p_MN, eras = predictions(p_MN, offsets_E1)
    result_MN = active().xp.empty(p_MN.shape, dtype=np.float64)
    bad_EM = eras.empty(np.uint8)
    space = room(eras.number, eras.longest, KEYS[p_MN.dtype.name])
    tables, results = _tables(eras, transform), (result_MN, stride(result_MN), bad_EM)
    arguments = (*eras.of(p_MN), space.scratch, space.places, *tables, *results)
    launch("rank", f"rank_{SUFFIX[p_MN.dtype.name]}", space.blocks, *arguments, shared=space.shared)
    eras.reject(bad_EM, p_MN, "p_MN", FINITE)
    return result_MN


def numerai_corr(p_MN: Array, y_N: Array, offsets_E1: Integers) -> Array:
    """Numerai's CORR of every prediction in every era, by cu/corr.cu.

    p_MN: float32 or float64, finite; y_N: float32 or float64, NaN for unknown. Returns float64 [M, E], NaN for a
    constant prediction, a constant label or fewer than two labels. Raises: ValueError.
    """
    p_MN, eras = predictions(p_MN, offsets_E1)
    powers = _powers_of(y_N, p_MN, eras)
    p_MN, _, eras = known_rows(p_MN, powers.known_N, eras)
    corr_ME = active().xp.empty(eras.shape[::-1], dtype=np.float64)
    bad_EM = eras.empty(np.uint8)
    space = room(eras.number, eras.longest, KEYS[p_MN.dtype.name])
    tables = (*_tables(eras, _power), powers.label_N, powers.squares_E)
    arguments = (*eras.of(p_MN), space.scratch, space.places, *tables, corr_ME, bad_EM)
    launch("corr", f"numerai_corr_{SUFFIX[p_MN.dtype.name]}", space.blocks, *arguments, shared=space.shared)
    eras.reject(bad_EM, p_MN, "p_MN", FINITE)
    return corr_ME


@dataclass(frozen=True, eq=False)
class Powers:
    """Labels as CORR reads them: known_N on the host, which rows are known; on the device powers of those rows less
    their mean, and per era the sums of their squares, NaN for constant labels or none."""

    known_N: Bools
    label_N: Array
    squares_E: Array


_held: OrderedDict[tuple[int, bytes], Powers] = OrderedDict()
_lock = threading.Lock()


def forget_labels() -> None:
    """Gives back the device memory of labels that `numerai_corr` has kept."""
    with _lock:
        _held.clear()


def _powers_of(y_N: object, p_MN: Array, eras: Runs) -> Powers:
    """Powers of labels, made once for the same labels and eras and kept for the next call: LABELS_HELD of them.

    They are made on the host, by the specification's own function: the rounding of numerai-tools is part of the score.
    Labels are the same where their bytes are.
    """
    host_N = labels(y_N, "y_N", p_MN)
    digest = xxhash.xxh3_128(np.ascontiguousarray(host_N).view(np.uint8).data)
    digest.update(f"{host_N.dtype.str}{len(host_N)}".encode())
    digest.update(np.concatenate([eras.begin_E, eras.end_E]).data)
    key = id(active()), digest.digest()
    with _lock:
        if key in _held:
            _held.move_to_end(key)
            return _held[key]
    label_N, squares_E = _powered(host_N, eras)
    known_N = ~np.isnan(host_N)
    made = Powers(known_N, upload(label_N[known_N]), upload(squares_E))
    with _lock:
        _held[key] = made
        while len(_held) > LABELS_HELD:
            _held.popitem(last=False)
    return made


def _powered(y_N: Floats, eras: Runs) -> tuple[Double, Double]:
    """Powers of the labels less their mean, and the sums of their squares per era, NaN for constant labels or none."""
    label_N, squares_E = np.zeros(len(y_N)), np.full(eras.shape[0], np.nan)
    for era, rows in eras.slices():
        known_N = ~np.isnan(y_N[rows])
        label = y_N[rows][known_N]
        if len(label) and label.min() < label.max():
            power = powered_label(y_N[rows])
            power -= power.mean()
            label_N[rows][known_N], squares_E[era] = power, power @ power
    return label_N, squares_E


def predictions(p_MN: Array, offsets_E1: Integers) -> tuple[Array, Runs]:
    """Predictions on the device, float32 or float64, and their runs; whether they are finite the kernels find out."""
    p_MN = inputs.columns(p_MN, "p_MN", "float32", "float64")
    return p_MN, runs(inputs.offsets(offsets_E1, p_MN.shape[1]), len(p_MN))


def labels(y_N: object, name: str, p_MN: Array) -> Floats:
    """Labels on the host, checked: float32 or float64, one per row, finite or NaN."""
    host_N: Floats = inputs.on_host(y_N, name)
    checks.vector(host_N, name, p_MN.shape[1], "float32", "float64")
    checks.no_infinity(host_N, name)
    return host_N


def known_rows(p_MN: Array, known_N: Bools, eras: Runs) -> tuple[Array, Bools, Runs]:
    """Predictions of the known rows alone, those rows, and the runs that are left.

    known_N: on the host. Raises: ValueError for predictions that are not finite, if a row goes: no kernel will see it.
    """
    if known_N.all():
        return p_MN, known_N, eras
    eras.check(p_MN, "p_MN", FINITE)
    before_N1 = np.concatenate([np.zeros(1, np.int64), np.cumsum(known_N, dtype=np.int64)])
    left = Runs(before_N1[eras.begin_E], before_N1[eras.end_E], eras.columns)
    return active().xp.ascontiguousarray(p_MN[:, upload(known_N)]), known_N, left


def _tables(eras: Runs, transform: Transform) -> tuple[Array, Array]:
    """Transformed ranks by twice the average rank, for every size of era, and where each era's part begins."""
    sizes, which_E = np.unique(eras.end_E - eras.begin_E, return_inverse=True)
    begin_S = np.concatenate([np.zeros(1, np.int64), np.cumsum(2 * sizes + 1)])
    return upload(_table(transform, tuple(sizes.tolist()))), upload(begin_S[:-1][which_E])


@lru_cache(maxsize=4)
def _table(transform: Transform, sizes: tuple[int, ...]) -> Double:
    """Transformed ranks `(k / 2 - 0.5) / n`, k = 0, 1, ..., 2 n, for every size n; k below 2 does not occur."""
    ranks = [(0.5 * np.arange(2 * size + 1) - 0.5) / max(size, 1) for size in sizes]
    return transform(np.concatenate(ranks or [np.zeros(1)]))


def _same(rank: Double) -> Double:
    return rank


def _gauss(rank: Double) -> Double:
    return np.asarray(ndtri(rank))


def _power(rank: Double) -> Double:
    gauss = _gauss(rank)
    return np.asarray(np.sign(gauss) * np.abs(gauss) ** 1.5)
