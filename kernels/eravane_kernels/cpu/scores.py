"""Scores within the era that need ranks alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eravane_kernels.arrays import Bools, Double, Floats, Integers
from eravane_kernels.cpu.inputs import checked_rows
from eravane_kernels.cpu.ranks import gauss_table, placed, power_table, rank_table, summed
from eravane_kernels.spec.cross_section import centred_label, check_labels, powered_label


def rank(p_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.rank`."""
    return _by_rank(p_MN, offsets_E1, rank_table)


def gaussianize(p_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.gaussianize`."""
    return _by_rank(p_MN, offsets_E1, gauss_table)


def _by_rank(p_MN: Floats, offsets_E1: Integers, table: Callable[[int], Double]) -> Double:
    rows_E = checked_rows(p_MN, offsets_E1)
    result_MN = np.empty(p_MN.shape)
    for rows in rows_E:
        if rows.stop > rows.start:
            placed(p_MN[:, rows], table(rows.stop - rows.start), result_MN[:, rows])
    return result_MN


def numerai_corr(p_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.numerai_corr`."""
    rows_E = checked_rows(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    result_ME = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(rows_E):
        known = ~np.isnan(y_N[rows])
        label = y_N[rows][known]
        if len(label) and label.min() < label.max():
            power = powered_label(y_N[rows])
            power -= power.mean()
            total, square, dot = summed(_of(p_MN[:, rows], known), power_table(len(label)), power[None]).T
            spread = (square - total**2 / len(label)) * (power @ power)
            result_ME[:, era] = dot / np.sqrt(np.where(spread > 0.0, spread, np.nan))
    return result_ME


def contribution(p_MN: Floats, reference_N: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.contribution`."""
    rows_E = checked_rows(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    check_labels(p_MN, reference_N, "reference_N")
    result_ME = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(rows_E):
        known = ~(np.isnan(y_N[rows]) | np.isnan(reference_N[rows]))
        reference = reference_N[rows][known]
        if len(reference) and reference.min() < reference.max():
            label = centred_label(y_N[rows][known])
            base = gaussianize(reference[None], np.array([0, len(reference)]))[0]
            against = np.stack([label, base])
            _, _, with_label, with_base = summed(_of(p_MN[:, rows], known), gauss_table(len(label)), against).T
            result_ME[:, era] = (with_label - with_base * (base @ label) / (base @ base)) / len(label)
    return result_ME


def _of(p_MN: Floats, known_N: Bools) -> Floats:
    """Predictions of the known rows, a copy only where some are not."""
    return p_MN if known_N.all() else p_MN[:, known_N]
