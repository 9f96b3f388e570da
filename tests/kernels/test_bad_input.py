"""Whatever does not fit is refused with what was expected and what was given."""

from __future__ import annotations

import numpy as np
import pytest

ROWS = 12
OFFSETS = np.array([0, 5, ROWS], dtype=np.int64)
X8 = np.ones((3, ROWS), dtype=np.int8)
X32 = np.ones((3, ROWS), dtype=np.float32)
P = np.arange(2.0 * ROWS).reshape(2, ROWS)
Y = np.arange(float(ROWS))
CELLS = np.zeros((2, 3))
TABLE = np.zeros((2, 3, 6), dtype=np.int8)
GROUP = [np.array([0, 1])]

CALLS = {
    "level_counts": (X8, OFFSETS),
    "float_stats": (X32, OFFSETS),
    "era_stats": (X32, OFFSETS),
    "apply_table": (X8, OFFSETS, TABLE),
    "clip": (X32, OFFSETS, CELLS, CELLS),
    "fill": (X32, OFFSETS, CELLS),
    "clip_bounds": (X32, OFFSETS),
    "fill_values": (X32, OFFSETS),
    "knn_impute": (X32, OFFSETS),
    "rank": (P, OFFSETS),
    "gaussianize": (P, OFFSETS),
    "numerai_corr": (P, Y, OFFSETS),
    "contribution": (P, Y, Y, OFFSETS),
    "feature_neutral_corr": (P, X8, Y, OFFSETS),
    "exposure": (P, X8, OFFSETS),
    "neutralize": (P, X8, OFFSETS),
    "gram": (P, OFFSETS),
    "dispersion": (P, OFFSETS),
    "group_structure": (X8, OFFSETS, GROUP),
}


def call(ops, name, old, new):
    """Calls an operation with good arguments but for one, found by identity."""
    arguments = [new if argument is old else argument for argument in CALLS[name]]
    return getattr(ops, name)(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_good_input_passes(ops, name):
    call(ops, name, None, None)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        (np.array([1, 5, ROWS]), "begin with 0"),
        (np.array([], dtype=np.int64), "begin with 0"),
        (np.array([0, 7, 5, ROWS]), r"ascending values, given \[7, 5\]"),
        (np.array([0, 5, ROWS + 1]), f"end at the {ROWS} rows given, given {ROWS + 1}"),
        (np.array([0, 5]), f"end at the {ROWS} rows"),
        (np.array([0, 5, ROWS], dtype=np.int32), "dtype int64, given"),
        (np.array([0.0, 5.0, ROWS]), "dtype int64, given"),
        (np.array([[0, 5, ROWS]]), "1 axes, given"),
    ],
)
def test_bad_offsets(ops, name, offsets, words):
    with pytest.raises(ValueError, match=f"offsets_E1: expected .*{words}"):
        call(ops, name, OFFSETS, offsets)


@pytest.mark.parametrize("name", CALLS)
def test_bad_columns(ops, name):
    first = CALLS[name][0]
    label = "p_MN" if first is P else "x_CN"
    for bad, words in (
        (first.astype(np.int64), "dtype .*, given .*int64"),
        (first.astype(np.float16), "dtype .*, given .*float16"),
        (first.astype(object), "dtype .*, given .*object"),
        (first[0], "2 axes, given shape"),
        (np.asfortranarray(first), "contiguous columns"),
        (np.repeat(first, 2, axis=1)[:, ::2], "contiguous columns"),
    ):
        with pytest.raises(ValueError, match=f"{'z_MN|' if name == 'gram' else ''}{label}: expected .*{words}"):
            call(ops, name, first, bad)


@pytest.mark.parametrize("name", [name for name, given in CALLS.items() if given[0] is not X8])
def test_bytes_in_foreign_order_or_unaligned(ops, name):
    first = CALLS[name][0]
    swapped = first.astype(first.dtype.newbyteorder())
    raw = np.zeros(first.nbytes + 1, dtype=np.uint8)
    unaligned = raw[1:].view(first.dtype).reshape(first.shape)
    with pytest.raises(ValueError, match="expected dtype"):
        call(ops, name, first, swapped)
    with pytest.raises(ValueError, match="aligned"):
        call(ops, name, first, unaligned)


@pytest.mark.parametrize("name", ["clip", "fill", "apply_table"])
def test_bad_cells(ops, name):
    old = TABLE if name == "apply_table" else CELLS
    for bad in (old[:1].copy(), old[:, :2].copy(), old.astype(np.float32)):
        with pytest.raises(ValueError, match=r"(low_EC|value_EC|table_ECL): expected"):
            call(ops, name, old, bad)


@pytest.mark.parametrize("name", ["numerai_corr", "contribution", "feature_neutral_corr"])
def test_bad_labels(ops, name):
    for bad, words in ((Y[:-1], f"{ROWS} rows, given {ROWS - 1}"), (Y.astype(np.int64), "dtype"), (P, "axes")):
        with pytest.raises(ValueError, match=f"(y_N|reference_N): expected .*{words}"):
            call(ops, name, Y, bad)


@pytest.mark.parametrize("name", ["exposure", "neutralize", "feature_neutral_corr"])
def test_bad_features(ops, name):
    for bad, words in ((X8[:, :-1], f"{ROWS} rows of p_MN"), (X8.astype(np.int64), "dtype"), (X8[0], "axes")):
        with pytest.raises(ValueError, match=f"f_FN: expected .*{words}"):
            call(ops, name, X8, bad)


def test_low_above_high(ops):
    low, high = CELLS.copy(), CELLS.copy()
    low[1, 2] = 0.5
    for function in (
        lambda: ops.clip(X32, OFFSETS, low, high),
        lambda: ops.clip_table(low, high),
    ):
        with pytest.raises(ValueError, match=r"low <= high, given 0.5 and 0.0 at era 1, column 2"):
            function()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "iqr"}, "method: expected one of winsorize, std, mad, given 'iqr'"),
        ({"low": -0.1}, "quantiles: expected values within 0..1, given -0.1"),
        ({"high": 1.5}, "quantiles: expected values within 0..1, given 1.5"),
        ({"low": 0.9, "high": 0.1}, "low, high: expected low <= high, given 0.9 and 0.1"),
        ({"k": -1.0}, "k: expected 0 or more, given -1.0"),
        ({"k": float("nan")}, "k: expected 0 or more, given nan"),
        ({"window": -1}, "window: expected 0 or more eras, given -1"),
    ],
)
def test_bad_bounds(ops, settings, words):
    with pytest.raises(ValueError, match=words):
        ops.clip_bounds(X32, OFFSETS, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "zero"}, "method: expected one of mean, median, mode, constant, given 'zero'"),
        ({"method": "constant"}, "constant: expected a number with method 'constant' alone, given None"),
        ({"method": "mean", "constant": 1.0}, "constant: expected a number with method 'constant' alone, given 1.0"),
        ({"method": "constant", "constant": float("nan")}, "constant: expected a finite number, given nan"),
        ({"window": -2}, "window: expected 0 or more eras, given -2"),
    ],
)
def test_bad_fills(ops, settings, words):
    with pytest.raises(ValueError, match=words):
        ops.fill_values(X32, OFFSETS, **settings)


def test_other_bad_settings(ops):
    with pytest.raises(ValueError, match=r"quantiles: expected values within 0\.\.1, given 2"):
        ops.float_stats(X32, OFFSETS, (0.5, 2.0))
    with pytest.raises(ValueError, match="k: expected 1 or more neighbours, given 0"):
        ops.knn_impute(X32, OFFSETS, 0)
    with pytest.raises(ValueError, match="proportion: expected a finite number, given nan"):
        ops.neutralize(P, X8, OFFSETS, float("nan"))
    with pytest.raises(ValueError, match="counts_ECL: expected dtype uint32"):
        ops.level_stats(np.zeros((2, 3, 6), dtype=np.int64))
    with pytest.raises(ValueError, match=r"first_ECL: expected levels .* given 9"):
        ops.compose_tables(np.full((2, 3, 6), 9, dtype=np.int8), TABLE)
    with pytest.raises(ValueError, match="then_ECL: expected shape"):
        ops.compose_tables(TABLE, TABLE[:1].copy())


@pytest.mark.parametrize(
    "given", [[[0.0]], np.zeros(3), np.zeros((1, 1), dtype=np.int64)], ids=["list", "axis", "dtype"]
)
def test_tables_take_cells_alone(ops, given):
    for function in (ops.fill_table, lambda cells: ops.clip_table(cells, cells)):
        with pytest.raises(ValueError, match=r"(value_EC|low_EC): expected"):
            function(given)


@pytest.mark.parametrize("given", [np.zeros((2, 3), dtype=np.uint32), np.zeros((2, 3, 5), dtype=np.uint32)])
def test_counts_have_six_slots(ops, given):
    for function in (ops.level_stats, ops.missing_eras):
        with pytest.raises(ValueError, match=r"counts_ECL: expected (3 axes|shape \(2, 3, 6\)), given"):
            function(given)
