"""Arguments that bring every kernel to its edges, beside what the specification says must come out."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from eravane_kernels import cuda, spec
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import Rules, Tree

Array = np.ndarray[Any, Any]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

EDGES = (0, 1, 2, 31, 32, 33, 255, 256)
"""Rows of eras around the sizes of warps, blocks and vectors."""
LONG = (5, 20_000, 0, 3)
FEW = (0, 1, 33, 300)


@dataclass(frozen=True)
class Case:
    """One operation on one kind of data.

    function: its name in `spec` and `cuda`; kernels: of cu/*.cu that it runs; arguments: drawn for eras that end at
    the given offsets, the columns first; tolerance: relative to the largest value expected, 0 for equality to the bit.
    """

    function: str
    kernels: tuple[str, ...]
    arguments: Callable[[np.random.Generator, Array], Arguments]
    tolerance: float = 0.0
    few: tuple[int, ...] = FEW


def offsets(rows: tuple[int, ...]) -> Array:
    """Offsets of eras with so many rows each."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(rows, dtype=np.int64)])


def _levels(random: np.random.Generator, rows: int) -> Array:
    """Any levels, none missing, all missing, constant."""
    x_CN = random.integers(-1, 5, (4, rows)).astype(np.int8)
    x_CN[1] = np.abs(x_CN[1])
    x_CN[2] = -1
    x_CN[3] = 4
    return x_CN


def _floats(random: np.random.Generator, rows: int) -> Array:
    """Any numbers, far from 0, heavy ties with both zeros, all missing, subnormal and huge, constant."""
    x_CN = random.normal(size=(6, rows))
    x_CN[1] += 1e4
    x_CN[2] = np.round(x_CN[2]) * random.choice([1.0, -1.0, 0.0], rows)
    x_CN[4] *= random.choice([1e-42, 1e-44, 1e37], rows)
    x_CN[random.random(x_CN.shape) < 0.2] = np.nan
    x_CN[3] = np.nan
    x_CN[5] = -2.5
    x_CN[5, random.random(rows) < 0.5] = -np.nan
    return x_CN.astype(np.float32)


def _predictions(random: np.random.Generator, rows: int, dtype: type) -> Array:
    """Any numbers, heavy ties with both zeros, subnormals, constant."""
    p_MN = random.normal(size=(4, rows))
    p_MN[1] = np.round(p_MN[1], 1) * random.choice([1.0, -1.0], rows)
    p_MN[2] *= 1e-43 if dtype is np.float32 else 1e-320
    p_MN[3] = 0.3
    return p_MN.astype(dtype)


def _bounds(random: np.random.Generator, offsets_E1: Array, columns: int) -> tuple[Array, Array]:
    """Bounds that cut on both sides, limit nothing, meet, or are subnormal."""
    low_EC = random.normal(-1.0, 0.5, (len(offsets_E1) - 1, columns))
    high_EC = low_EC + random.exponential(1.0, low_EC.shape)
    high_EC[:, 0] = np.nan
    low_EC[::2, 1] = np.nan
    high_EC[:, 2] = low_EC[:, 2]
    low_EC[:, 4], high_EC[:, 4] = -3.3e-43, 2.7e-43
    return low_EC, high_EC


def _level_counts(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_levels(random, offsets_E1[-1]), offsets_E1), {}


def _apply_table(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    x_CN = _levels(random, offsets_E1[-1])
    return (x_CN, offsets_E1, random.integers(-128, 128, (len(offsets_E1) - 1, len(x_CN), 6)).astype(np.int8)), {}


def _float_stats(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_floats(random, offsets_E1[-1]), offsets_E1, (0.0, 0.05, 1 / 3, 0.5, 0.97, 1.0)), {}


def _clip(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    x_CN = _floats(random, offsets_E1[-1])
    return (x_CN, offsets_E1, *_bounds(random, offsets_E1, len(x_CN))), {}


def _fill(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    x_CN = _floats(random, offsets_E1[-1])
    return (x_CN, offsets_E1, _bounds(random, offsets_E1, len(x_CN))[0]), {}


def _deviations(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_floats(random, offsets_E1[-1]), offsets_E1), {"method": "mad", "window": 2}


def _level_bounds(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_levels(random, offsets_E1[-1]), offsets_E1), {"low": 0.2, "high": 0.9, "window": 1}


def _single(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_predictions(random, offsets_E1[-1], np.float32), offsets_E1), {}


def _double(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_predictions(random, offsets_E1[-1], np.float64), offsets_E1), {}


def _labels(random: np.random.Generator, rows: int) -> Array:
    y_N = random.choice([0.0, 0.25, 0.5, 0.75, 1.0], rows, p=[0.05, 0.2, 0.5, 0.2, 0.05])
    y_N[random.random(rows) < 0.1] = np.nan
    return y_N


def _single_corr(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    rows = int(offsets_E1[-1])
    y_N = np.where(np.isnan(_labels(random, rows)), np.nan, random.normal(size=rows)).astype(np.float32)
    return (_predictions(random, rows, np.float32), y_N, offsets_E1), {}


def _double_corr(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    rows = int(offsets_E1[-1])
    return (_predictions(random, rows, np.float64), _labels(random, rows), offsets_E1), {}


def _growth(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    x_CN = _levels(random, offsets_E1[-1])
    hessian_N = random.choice([0.0, 0.5, 1.0], x_CN.shape[1]).astype(np.float32)
    gradient_N = hessian_N * random.normal(size=x_CN.shape[1]).astype(np.float32)
    return (x_CN, gradient_N, hessian_N, np.array([0, 1, 3]), Rules(max_depth=4, learn_missing=True)), {}


def _era_stats(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    return (_levels(random, offsets_E1[-1]), offsets_E1, (0.0, 0.05, 1 / 3, 0.5, 0.97, 1.0)), {}


def _forest(dtype: type) -> Callable[[np.random.Generator, Array], Arguments]:
    """Trees of one node to 41, on columns 0..3; missing values on either side, some numbers subnormal."""

    def arguments(random: np.random.Generator, offsets_E1: Array) -> Arguments:
        x_CN = (_levels if dtype is np.int8 else _floats)(random, offsets_E1[-1])
        subnormal_N = random.choice([1.0, 1e-41], x_CN.shape[1])
        total_N = (random.normal(size=x_CN.shape[1]) * subnormal_N).astype(np.float32)
        node_K4, tree_T2 = _trees(random, (0, 1, 20, *[5] * 32))
        return (x_CN, node_K4, tree_T2[:, 0].copy(), total_N), {}

    return arguments


def _trees(random: np.random.Generator, splits: tuple[int, ...]) -> tuple[Array, Array]:
    """Nodes of trees of so many splits on columns 0..3, one after the other, and where each begins and ends."""
    trees = [grown(random, 4, size) for size in splits]
    end_T = np.cumsum([len(tree) for tree in trees])
    tree_T2 = np.stack([end_T - [len(tree) for tree in trees], end_T], axis=1).astype(np.int32)
    for tree, root in zip(trees, tree_T2[:, 0], strict=True):
        tree[tree[:, 0] != spec.LEAF, 2:] += root
    return np.concatenate(trees), tree_T2


def _renewed(dtype: type) -> Callable[[np.random.Generator, Array], Arguments]:
    """Rows of several tiles; four models of none to eleven trees, one without labels; weights of 0."""

    def arguments(random: np.random.Generator, offsets_E1: Array) -> Arguments:
        rows = int(offsets_E1[-1]) + 2_100
        x_CN = (_levels if dtype is np.int8 else _floats)(random, rows)
        node_K4, tree_T2 = _trees(random, (0, 1, 20, *[5] * 12))
        label_BN = random.normal(size=(4, rows)) * random.choice([1.0, 1e-41, np.nan], (4, rows))
        label_BN[1] = np.nan
        weight_N = (random.random(rows) * random.choice([0.0, 1.0, 1e-41], rows)).astype(np.float32)
        models = label_BN.astype(np.float32), weight_N, random.normal(size=(4, rows))
        first_B1, old_K = np.array([0, 11, 13, 13, 15]), node_K4.view(np.float32)[:, 1].astype(np.float64)
        return (x_CN, node_K4, old_K, tree_T2, first_B1, *models, 0.05, 1.0, 0.8), {}

    return arguments


def grown(random: np.random.Generator, columns: int, splits: int) -> Array:
    """The nodes of a tree for `add_trees`, int32 [1 + 2 * splits, 4]: leaves at random are split in turn."""
    number_K = random.normal(size=1 + 2 * splits) * random.choice([1.0, 4.0, 1e-42, 0.0, -0.0], 1 + 2 * splits)
    node_K4 = np.zeros((len(number_K), 4), np.int32)
    node_K4[:, 0], node_K4[:, 1] = spec.LEAF, number_K.astype(np.float32).view(np.int32)
    leaves = [0]
    for first in range(1, 1 + 2 * splits, 2):
        at = leaves.pop(int(random.integers(len(leaves))))
        node_K4[at, 0] = random.integers(2 * columns)
        node_K4[at, 2:] = random.permutation([first, first + 1])
        leaves += [first, first + 1]
    return node_K4


def _placed(dtype: type) -> Callable[[np.random.Generator, Array], Arguments]:
    """Columns in another order of rows, a tenth of which go nowhere; every other column with bits of missing values."""

    def arguments(random: np.random.Generator, offsets_E1: Array) -> Arguments:
        rows = int(offsets_E1[-1])
        x_CN = _levels(random, rows) if dtype is np.int8 else _predictions(random, rows, dtype)
        if dtype is np.float64:
            x_CN[1] *= random.choice([1e-40, 1e-46, 1e37, 1.0, np.nan], rows)
        valid = [np.packbits(random.random(rows) < 0.9, bitorder="little") if c % 2 else None for c in range(len(x_CN))]
        taken_N = random.random(rows) < 0.9
        row_N = np.full(rows, -1, dtype=np.int32)
        row_N[taken_N] = random.permutation(int(taken_N.sum()))
        return (x_CN, valid, row_N, int(taken_N.sum())), {}

    return arguments


def _mixed(random: np.random.Generator, offsets_E1: Array) -> Arguments:
    """Sets of weights: of some models, of one, of none; one model is NaN and never used, two rows are alike."""
    z_MN = random.normal(size=(9, offsets_E1[-1]))
    z_MN[:, 1::2] = z_MN[:, : -1 if z_MN.shape[1] % 2 else None : 2][:, : z_MN[:, 1::2].shape[1]]
    weight_KM = random.dirichlet(np.ones(9), 5)
    weight_KM[1, 3:] = 0.0
    weight_KM[2] = np.eye(9)[4]
    weight_KM[3] = 0.0
    z_MN[8], weight_KM[:, 8] = np.nan, 0.0
    return (z_MN, weight_KM), {}


SUMS = 1e-12
"""Sums in double, in another order than NumPy's."""

CASES: dict[str, Case] = {
    "level_counts": Case("level_counts", ("level_counts",), _level_counts, few=(0, 1, 33, 7_000)),
    "apply_table": Case("apply_table", ("apply_table",), _apply_table),
    "era_stats": Case("era_stats", ("level_statistics",), _era_stats, SUMS),
    "bounds_of_levels": Case("clip_bounds", ("level_counts", "statistics_of_counts"), _level_bounds),
    "forest_levels": Case("add_trees", ("add_trees_levels",), _forest(np.int8)),
    "forest_floats": Case("add_trees", ("add_trees_floats",), _forest(np.float32)),
    "leaves_levels": Case("renew_leaves", ("list_rows_levels", "renew_leaves"), _renewed(np.int8)),
    "leaves_floats": Case("renew_leaves", ("list_rows_floats", "renew_leaves"), _renewed(np.float32)),
    "place_levels": Case("place_columns", ("place_levels",), _placed(np.int8)),
    "place_floats": Case("place_columns", ("place_floats",), _placed(np.float32)),
    "place_doubles": Case("place_columns", ("place_doubles",), _placed(np.float64)),
    "mix": Case("mix", ("mix_rows",), _mixed, 2e-12),
    "float_stats": Case("float_stats", ("float_moments", "select_quantiles", "float_mode"), _float_stats, SUMS),
    "deviations": Case("clip_bounds", ("select_quantiles", "select_deviation"), _deviations),
    "clip": Case("clip", ("clip_values",), _clip),
    "fill": Case("fill", ("fill_values",), _fill),
    "rank_float": Case("rank", ("rank_float",), _single),
    "rank_double": Case("rank", ("rank_double",), _double),
    "gaussianize": Case("gaussianize", ("rank_double",), _double),
    "corr_float": Case("numerai_corr", ("numerai_corr_float",), _single_corr, SUMS),
    "growth": Case(
        "grow_tree",
        (
            *("grow_halve", "grow_measure", "grow_quantise", "grow_pack_weights_missing", "grow_evaluate"),
            *("grow_count_weights_missing", "grow_decide", "grow_part", "grow_list", "grow_turn"),
        ),
        _growth,
    ),
    "corr_double": Case("numerai_corr", ("numerai_corr_double",), _double_corr, SUMS),
}


@dataclass(frozen=True)
class Layout:
    """How columns lie in memory: values before the first, and from one column to the next beyond its rows."""

    before: int = 0
    between: int = 0

    def view(self, x_CN: Array) -> Any:
        """A copy of x_CN on the device that lies so."""
        width, rows = x_CN.shape
        buffer = active().xp.zeros(self.before + width * (rows + self.between), dtype=x_CN.dtype)
        laid = buffer[self.before :].reshape(width, rows + self.between)[:, :rows]
        laid[:] = upload(x_CN)
        return laid


def outcome(case: Case, rows: tuple[int, ...], layout: Layout, seed: int = 0) -> list[tuple[str, Any, Any]]:
    """What `cuda` gives on the runtime in use and what `spec` gives, as (name, given, expected) NumPy arrays."""
    (x_CN, *others), named = case.arguments(np.random.default_rng(seed), offsets(rows))
    expected = getattr(spec, case.function)(x_CN, *deepcopy(others), **named)
    given = getattr(cuda, case.function)(layout.view(x_CN), *others, **named)
    host = active().host
    return [(name, host(left), right) for (name, left), (_, right) in zip(_parts(given), _parts(expected), strict=True)]


def _parts(result: Any) -> list[tuple[str, Any]]:
    if is_dataclass(result):
        return [(field.name, getattr(result, field.name)) for field in fields(result)]
    if isinstance(result, tuple):
        return [(f"{number} {name}", part) for number, whole in enumerate(result) for name, part in _parts(whole)]
    return [("", result)]


def assert_matches(case: Case, rows: tuple[int, ...], layout: Layout | None = None, seed: int = 0) -> None:
    """Fails unless the kernels give what the specification gives, to the case's tolerance."""
    for name, given, expected in outcome(case, rows, layout or Layout(), seed):
        assert given.shape == expected.shape, (case.function, name)
        assert given.dtype == expected.dtype, (case.function, name)
        if case.tolerance == 0.0 or name in EXACT_STATISTICS:
            np.testing.assert_array_equal(given, expected, err_msg=f"{case.function} {name}")
        else:
            scale = np.nanmax(np.abs(expected), axis=0, initial=1e-300)
            np.testing.assert_allclose(given / scale, expected / scale, rtol=0, atol=case.tolerance, err_msg=name)


def same_tree(given: Tree, wanted: Tree) -> None:
    """Fails unless two trees are the same to the bit."""
    for field in fields(Tree):
        np.testing.assert_array_equal(getattr(given, field.name), getattr(wanted, field.name), err_msg=field.name)


EXACT_STATISTICS = ("count_EC", "missing_EC", "min_EC", "max_EC", "mode_EC", "quantiles_QEC")
