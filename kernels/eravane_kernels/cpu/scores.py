"""Scores within the era that need ranks alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eravane_kernels.arrays import Bools, Double, Floats, Integers
from eravane_kernels.cpu.jit import kernel, summing
from eravane_kernels.cpu.ranks import Places, gauss_table, power_table, rank_table, sorted_rows
from eravane_kernels.eras import spans
from eravane_kernels.spec.cross_section import centred_label, check_labels, check_predictions, powered_label


def rank(p_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.rank`."""
    return _by_rank(p_MN, offsets_E1, rank_table)


def gaussianize(p_MN: Floats, offsets_E1: Integers) -> Double:
    """See `spec.gaussianize`."""
    return _by_rank(p_MN, offsets_E1, gauss_table)


def _by_rank(p_MN: Floats, offsets_E1: Integers, table: Callable[[int], Double]) -> Double:
    check_predictions(p_MN, offsets_E1)
    result_MN = np.empty(p_MN.shape)
    for rows in spans(offsets_E1):
        if rows.stop > rows.start:
            for block, row, twice in sorted_rows(p_MN[:, rows]):
                _scatter(row, twice, table(rows.stop - rows.start), result_MN[block, rows])
    return result_MN


@kernel
def _scatter(row_MN: Places, twice_MN: Places, table: Double, result_MN: Double) -> None:
    for model in range(row_MN.shape[0]):
        for place in range(row_MN.shape[1]):
            result_MN[model, np.uint32(row_MN[model, place])] = table[np.uint32(twice_MN[model, place])]


def numerai_corr(p_MN: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.numerai_corr`."""
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    result_ME = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        known = ~np.isnan(y_N[rows])
        label = y_N[rows][known]
        if len(label) and label.min() < label.max():
            power = powered_label(y_N[rows])
            power -= power.mean()
            total, square, dot = _sums(p_MN[:, rows], known, power_table(len(label)), power[None]).T
            spread = (square - total**2 / len(label)) * (power @ power)
            result_ME[:, era] = dot / np.sqrt(np.where(spread > 0.0, spread, np.nan))
    return result_ME


def contribution(p_MN: Floats, reference_N: Floats, y_N: Floats, offsets_E1: Integers) -> Double:
    """See `spec.contribution`."""
    check_predictions(p_MN, offsets_E1)
    check_labels(p_MN, y_N)
    check_labels(p_MN, reference_N, "reference_N")
    result_ME = np.full((len(p_MN), len(offsets_E1) - 1), np.nan)
    for era, rows in enumerate(spans(offsets_E1)):
        known = ~(np.isnan(y_N[rows]) | np.isnan(reference_N[rows]))
        reference = reference_N[rows][known]
        if len(reference) and reference.min() < reference.max():
            label = centred_label(y_N[rows][known])
            base = gaussianize(reference[None], np.array([0, len(reference)]))[0]
            sums_MS = _sums(p_MN[:, rows], known, gauss_table(len(label)), np.stack([label, base]))
            with_label, with_base = sums_MS[:, 2], sums_MS[:, 3]
            result_ME[:, era] = (with_label - with_base * (base @ label) / (base @ base)) / len(label)
    return result_ME


def _sums(p_MN: Floats, known_N: Bools, table: Double, against_TN: Double) -> Double:
    """Sums over the known rows of z, z squared and z times every row of against_TN; float64 [M, 2 + T].

    z: the table's entry for twice the average rank of the prediction among the known rows.
    """
    sums_MS = np.empty((len(p_MN), 2 + len(against_TN)))
    for block, row, twice in sorted_rows(p_MN if known_N.all() else p_MN[:, known_N]):
        _accumulate(row, twice, table, against_TN, sums_MS[block])
    return sums_MS


@summing
def _accumulate(row_MN: Places, twice_MN: Places, table: Double, against_TN: Double, sums_MS: Double) -> None:
    for model in range(row_MN.shape[0]):
        row_N, twice_N = row_MN[model], twice_MN[model]
        total = square = 0.0
        for place in range(twice_N.shape[0]):
            z = table[np.uint32(twice_N[place])]
            total += z
            square += z * z
        sums_MS[model, 0], sums_MS[model, 1] = total, square
        for target in range(against_TN.shape[0]):
            against_N, dot = against_TN[target], 0.0
            for place in range(row_N.shape[0]):
                dot += table[np.uint32(twice_N[place])] * against_N[np.uint32(row_N[place])]
            sums_MS[model, 2 + target] = dot
