"""Statistics of an era as a whole, on the device: agreement of predictions, correlation inside and between groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from eravane_kernels import checks
from eravane_kernels.arrays import MISSING, Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.cross_section import predictions
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.launch import FINITE, LEVEL, NOT_INFINITE, Runs, runs
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.spec.context import ALONE

Groups = Sequence[npt.NDArray[np.integer[Any]]]

ZERO = 1e-9
"""A mean of standardised columns shorter than this is zero to rounding."""


def gram(z_MN: Array, offsets_E1: Integers) -> Array:
    """Mean product of every pair of rows, `z z' / n`, per era: with gaussianised predictions, their agreement.

    z_MN: float32 or float64, finite. Returns float64 [E, M, M] on the device, NaN for an empty era. Raises: ValueError.
    """
    z_MN, eras = predictions(z_MN, offsets_E1)
    eras.check(z_MN, "p_MN", FINITE)
    result_EMM = active().xp.full((eras.shape[0], len(z_MN), len(z_MN)), np.nan)
    for era, rows in eras.slices():
        part = z_MN[:, rows].astype(np.float64)
        result_EMM[era] = part @ part.T / part.shape[1]
    return result_EMM


def mean_products(z_MN: Array, y_N: Array, offsets_E1: Integers) -> Array:
    """Mean product of every row with a vector, `z y / n`, per era.

    Arguments as `spec.mean_products`. Returns float64 [M, E] on the device. Raises: ValueError.
    """
    z_MN, eras = predictions(z_MN, offsets_E1)
    inputs.shaped_alike(y_N, "y_N", (z_MN.shape[1],), "float32", "float64")
    y_1N = upload(y_N)[None]
    Runs(eras.begin_E, eras.end_E, 1).check(y_1N, "y_N", FINITE)
    eras.check(z_MN, "p_MN", FINITE)
    result_ME = active().xp.full(eras.shape[::-1], np.nan)
    for era, rows in eras.slices():
        part_MN, label_N = z_MN[:, rows].astype(np.float64), y_1N[0, rows].astype(np.float64)
        result_ME[:, era] = part_MN @ label_N / part_MN.shape[1]
    return result_ME


def dispersion(p_MN: Array, offsets_E1: Integers) -> Array:
    """Standard deviation (ddof 0) of every prediction within the era.

    p_MN: float32 or float64, finite. Returns float64 [M, E] on the device, NaN for an empty era. Raises: ValueError.
    """
    p_MN, eras = predictions(p_MN, offsets_E1)
    eras.check(p_MN, "p_MN", FINITE)
    result_ME = active().xp.full(eras.shape[::-1], np.nan)
    for era, rows in eras.slices():
        result_ME[:, era] = p_MN[:, rows].astype(np.float64).std(axis=1)
    return result_ME


def group_structure(x_CN: Array, offsets_E1: Integers, groups: Groups) -> Array:
    """How far the columns of a group move together in an era, and the groups' means.

    Arguments as `spec.group_structure`. Returns float64 [E, G, 5 + G] on the device. Raises: ValueError.
    """
    x_CN, eras = _checked(x_CN, offsets_E1, groups)
    xp, inside = active().xp, len(ALONE)
    result = xp.empty((eras.shape[0], len(groups), inside + len(groups)))
    result[:, :, :inside] = xp.asarray(ALONE)
    result[:, :, inside:] = xp.eye(len(groups))
    positions = [upload(np.asarray(group, dtype=np.int64)) for group in groups]
    for era, rows in eras.slices() if positions else ():
        sums = []
        for number, group in enumerate(positions):
            unit_CN = _unit(x_CN[:, rows][group])
            sums.append(unit_CN.sum(axis=0))
            if len(unit_CN) > 1:
                result[era, number, :inside] = _structure(unit_CN @ unit_CN.T)
        mean_GN = xp.stack(sums)
        length_G = xp.sqrt((mean_GN**2).sum(axis=1))
        unit_GN = xp.where((length_G > ZERO)[:, None], mean_GN / xp.maximum(length_G, ZERO)[:, None], 0.0)
        result[era, :, inside:] = xp.where(xp.eye(len(positions), dtype=np.bool_), 1.0, unit_GN @ unit_GN.T)
    return result


def _structure(corr_CC: Array) -> Array:
    """Mean, mean absolute and mean squared correlation of the pairs, first and second eigenvalue over the width."""
    xp, width = active().xp, len(corr_CC)
    pairs = corr_CC[xp.triu(xp.ones((width, width), dtype=np.bool_), 1)]
    second_first = xp.linalg.eigvalsh(corr_CC)[-2:] / width
    return xp.stack([pairs.mean(), xp.abs(pairs).mean(), (pairs**2).mean(), second_first[1], second_first[0]])


def _unit(x_CN: Array) -> Array:
    """The columns that vary, centred and of length 1, missing cells at the mean."""
    xp = active().xp
    held_CN = x_CN != MISSING if x_CN.dtype == np.int8 else ~xp.isnan(x_CN)
    value_CN = x_CN.astype(np.float64)
    least_C = xp.where(held_CN, value_CN, np.inf).min(axis=1)
    most_C = xp.where(held_CN, value_CN, -np.inf).max(axis=1)
    kept_C = least_C < most_C
    value_CN, held_CN = value_CN[kept_C], held_CN[kept_C]
    mean_C = xp.where(held_CN, value_CN, 0.0).sum(axis=1) / held_CN.sum(axis=1)
    centred_CN = xp.where(held_CN, value_CN - mean_C[:, None], 0.0)
    return centred_CN / xp.sqrt((centred_CN**2).sum(axis=1))[:, None]


def _checked(x_CN: Array, offsets_E1: Integers, groups: Groups) -> tuple[Array, Runs]:
    """Columns on the device and their runs, checked as `spec.context.check_groups` does."""
    x_CN = inputs.columns(x_CN, "x_CN", "int8", "float32")
    eras = runs(inputs.offsets(offsets_E1, x_CN.shape[1]), len(x_CN))
    checks.groups(groups, len(x_CN))
    eras.check(x_CN, "x_CN", LEVEL if x_CN.dtype == np.int8 else NOT_INFINITE)
    return x_CN, eras
