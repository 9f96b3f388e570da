"""Statistics of an era as a whole, from one matrix of correlations per era."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigvalsh

from eravane_kernels import checks
from eravane_kernels.arrays import LEVELS, MISSING, Bools, Columns, Double, Floats, Integers
from eravane_kernels.cpu.centring import centre
from eravane_kernels.cpu.inputs import check_predictions, levels
from eravane_kernels.cpu.jit import dividing
from eravane_kernels.cpu.layout import flat
from eravane_kernels.cpu.levelproducts import Products, level_products
from eravane_kernels.cpu.projection import EXACT
from eravane_kernels.eras import spans
from eravane_kernels.spec.context import ALONE, FLAT, Groups, check_groups


def gram(z_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.gram`."""
    check_predictions(z_MN, offsets_E1)
    result_EMM = np.full((len(offsets_E1) - 1, len(z_MN), len(z_MN)), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            part_MN = z_MN[:, rows].astype(np.float64, copy=False)
            result_EMM[era] = part_MN @ part_MN.T / (rows.stop - rows.start)
    return result_EMM


def mean_products(z_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.mean_products`."""
    check_predictions(z_MN, offsets_E1)
    checks.vector(y_N, "y_N", z_MN.shape[1], "float32", "float64")
    checks.finite(y_N[None], "y_N")
    result_ME = np.full((len(z_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            part_MN = z_MN[:, rows].astype(np.float64, copy=False)
            result_ME[:, era] = part_MN @ y_N[rows] / (rows.stop - rows.start)
    return result_ME


def dispersion(p_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.dispersion`."""
    check_predictions(p_MN, offsets_E1)
    result_ME = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        if rows.stop > rows.start:
            length_M = centre(*flat(p_MN[:, rows]), np.nan, np.empty((len(p_MN), rows.stop - rows.start)))
            result_ME[:, era] = np.nan_to_num(length_M) / np.sqrt(rows.stop - rows.start)
    return result_ME


def group_structure(x_CN: Columns, offsets_E1: Integers, groups: Groups) -> Double:
    """See `spec.group_structure`: products of group means are sums over blocks of the correlations."""
    check_groups(x_CN, offsets_E1, groups, levels)
    union_U, place_C = _union(groups, len(x_CN))
    position_GK = [place_C[np.asarray(group, dtype=np.intp)] for group in groups]
    member_GU = np.zeros((len(groups), len(union_U)))
    for number, place_K in enumerate(position_GK):
        member_GU[number, place_K] = 1.0
    result = np.empty((len(offsets_E1) - 1, len(groups), len(ALONE) + len(groups)))
    for era, rows in enumerate(spans(offsets_E1)):
        corr_UU, varies_U = _correlations(x_CN, rows, union_U)
        for number, place_K in enumerate(position_GK):
            kept_K = place_K[varies_U[place_K]]
            result[era, number, : len(ALONE)] = _structure(corr_UU[np.ix_(kept_K, kept_K)])
        kept_GU = member_GU * varies_U
        sum_GG = kept_GU @ corr_UU @ kept_GU.T
        square_G = sum_GG.diagonal()
        length_G = np.sqrt(np.where(square_G > (FLAT * kept_GU.sum(axis=1)) ** 2, square_G, np.inf))
        between_GG = sum_GG / length_G / length_G[:, None]
        np.fill_diagonal(between_GG, 1.0)
        result[era, :, len(ALONE) :] = between_GG
    return result


def _union(groups: Groups, width: int) -> tuple[Integers, Integers]:
    """Columns of any group, and the position of each column among them."""
    held_C = np.zeros(width, dtype=np.bool_)
    for group in groups:
        held_C[np.asarray(group, dtype=np.intp)] = True
    return np.flatnonzero(held_C), np.cumsum(held_C) - 1


def _correlations(x_CN: Columns, rows: slice, column_U: Integers) -> tuple[Double, Bools]:
    """Correlations of columns in an era, 0 for those that do not vary, and which do; float64 [U, U], bool [U]."""
    count = rows.stop - rows.start
    if x_CN.dtype == np.int8 and count * (LEVELS - 1) ** 2 < EXACT:
        x_S, start_C = flat(x_CN[:, rows])
        if (found := level_products(x_S, start_C[column_U], count)) is not None:
            return _normalise(found[0], float(count), found[1])
    value_UN = x_CN[column_U, rows]
    centred_UN = np.empty(value_UN.shape)
    hole = float(MISSING) if x_CN.dtype == np.int8 else np.nan
    length_U = centre(*flat(value_UN), hole, centred_UN)
    centred_UN[np.isnan(length_U)] = 0.0
    return _normalise(centred_UN @ centred_UN.T, 1.0, np.zeros(len(column_U)))


@dividing
def _normalise(product_UU: Products | Double, count: float, total_U: Double) -> tuple[Double, Bools]:
    """Correlations from products of columns, in one pass; see `_correlations`."""
    width = total_U.shape[0]
    length_U, varies_U, corr_UU = np.empty(width), np.empty(width, dtype=np.bool_), np.empty((width, width))
    for one in range(width):
        square = count * np.float64(product_UU[one, one]) - total_U[one] * total_U[one]
        varies_U[one] = square > 0.0
        length_U[one] = np.sqrt(square) if square > 0.0 else np.inf
    for one in range(width):
        total, length, product_U, corr_U = total_U[one], length_U[one], product_UU[one], corr_UU[one]
        for other in range(width):
            product = count * np.float64(product_U[other]) - total * total_U[other]
            corr_U[other] = product / length_U[other] / length
    return corr_UU, varies_U


def _structure(corr_KK: Double) -> tuple[float, ...]:
    """The first five numbers of `spec.group_structure`."""
    width = len(corr_KK)
    if width < 2:
        return ALONE
    pairs = width * (width - 1)
    means = [(float(part.sum()) - width) / pairs for part in (corr_KK, np.abs(corr_KK), corr_KK**2)]
    second, first = eigvalsh(corr_KK, subset_by_index=[width - 2, width - 1], check_finite=False) / width
    return (*means, float(first), float(second))
