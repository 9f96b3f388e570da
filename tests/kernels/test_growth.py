"""Trees on integer levels against XGBoost's own, grown on the same columns and rows."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from eravane_kernels.cpu import growth as cpu
from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules, Tree
from eravane_kernels.spec import growth as spec

FROM_WEIGHT = Version(xgb.__version__) >= Version("3.4")


@dataclass(frozen=True)
class Case:
    """What a tree is grown on."""

    x_CN: np.ndarray
    columns_K: np.ndarray
    gradient_N: np.ndarray
    hessian_N: np.ndarray | None
    rules: Rules


def grown(case: Case, threads: int = 1, cuts: tuple[int, ...] = ()) -> tuple[Tree, np.ndarray]:
    """Our tree and its output; the rows in segments cut there."""
    parts = [np.ascontiguousarray(part) for part in np.split(case.x_CN, cuts, axis=1)]
    grower = Grower(LevelColumns.of(parts), case.rules, len(case.columns_K), threads)
    margin_N = np.zeros(case.x_CN.shape[1], dtype=np.float32)
    return grower.grow(case.gradient_N.copy(), case.hessian_N, case.columns_K, margin_N), margin_N


def of_xgboost(case: Case) -> tuple[dict[str, Any], np.ndarray]:
    """The tree that XGBoost grows on those columns from the same gradients, and its output."""
    rules, lowest = case.rules, 0 if case.rules.learn_missing else -1
    missing = -1 if case.rules.learn_missing else np.nan
    every = np.repeat(np.arange(lowest, 5, dtype=np.float32)[:, None], len(case.columns_K), axis=1)
    reference = xgb.QuantileDMatrix(every, max_bin=16, nthread=1)
    rows_NK = case.x_CN[case.columns_K].T.astype(np.float32)
    matrix = xgb.QuantileDMatrix(rows_NK, ref=reference, max_bin=16, nthread=1, missing=missing)
    params = {
        "tree_method": "hist", "nthread": 1, "base_score": 0.0, "max_bin": 16, "max_depth": rules.max_depth,
        "eta": rules.eta, "lambda": rules.reg_lambda, "alpha": rules.reg_alpha, "gamma": rules.gamma,
        "min_child_weight": rules.min_child_weight,
    }  # fmt: skip
    booster = xgb.Booster(params, [matrix])
    hessian_N = np.ones_like(case.gradient_N) if case.hessian_N is None else case.hessian_N
    booster.boost(matrix, 0, grad=case.gradient_N, hess=hessian_N)
    model = json.loads(bytes(booster.save_raw("json")))
    output_N = booster.inplace_predict(rows_NK, missing=missing, predict_type="margin")
    return model["learner"]["gradient_booster"]["model"]["trees"][0], output_N


def worth(gradient: float, hessian: float, rules: Rules) -> float:
    """Chen and Guestrin (2016), equation 7, with the L1 penalty."""
    pull = max(abs(gradient) - rules.reg_alpha, 0.0)
    return pull * pull / (hessian + rules.reg_lambda) if hessian > 0 else 0.0


def gain_of(case: Case, rows_N: np.ndarray, left_N: np.ndarray) -> tuple[float, float]:
    """Gain of a split of some rows in double precision, and the precision of XGBoost's float32 sums of it."""
    g_N = case.gradient_N.astype(np.float64)
    h_N = np.ones_like(g_N) if case.hessian_N is None else case.hessian_N.astype(np.float64)
    parts = [worth(g_N[part].sum(), h_N[part].sum(), case.rules) for part in (left_N, rows_N & ~left_N, rows_N)]
    return parts[0] + parts[1] - parts[2], 4e-7 * max(parts) + 1e-6


def goes_left(case: Case, column: int, below: float, missing_left: bool) -> np.ndarray:
    """Rows that a split sends left."""
    x_N = case.x_CN[column]
    left_N = x_N < below
    return np.where(x_N == -1, missing_left, left_N) if case.rules.learn_missing else left_N


def compare(case: Case, tree: Tree, theirs: dict[str, Any]) -> int:
    """Check that it is the same tree, node by node from the root, up to ties; returns how many ties fell otherwise."""
    children, column_K = np.array(theirs["left_children"]), case.columns_K[theirs["split_indices"]]
    pending, ties = [(0, 0, np.ones(case.x_CN.shape[1], dtype=bool))], 0
    while pending:
        ours, other, rows_N = pending.pop()
        np.testing.assert_allclose(tree.hessian_K[ours], theirs["sum_hessian"][other], rtol=2e-6, atol=1e-7)
        below, missing_left = theirs["split_conditions"][other], bool(theirs["default_left"][other])
        if tree.left_K[ours] < 0 and children[other] < 0:
            np.testing.assert_allclose(tree.weight_K[ours], below, rtol=1e-6, atol=1e-6)
            continue
        mine = int(tree.column_K[ours]), float(tree.below_K[ours]), bool(tree.missing_left_K[ours])
        mine_N = rows_N & goes_left(case, *mine)
        if tree.left_K[ours] >= 0 and children[other] >= 0 and mine == (column_K[other], min(below, 5.0), missing_left):
            gain, precision = gain_of(case, rows_N, mine_N)
            np.testing.assert_allclose(tree.gain_K[ours], theirs["loss_changes"][other], rtol=1e-5, atol=precision)
            np.testing.assert_allclose(tree.gain_K[ours], gain, rtol=1e-5, atol=precision)
            left, right = int(tree.left_K[ours]), int(tree.right_K[ours])
            assert tree.parent_K[left] == tree.parent_K[right] == ours
            pending += [(left, children[other], mine_N), (right, theirs["right_children"][other], rows_N & ~mine_N)]
            continue
        ties += 1
        their_N = rows_N & goes_left(case, int(column_K[other]), below, missing_left)
        (gain, precision), (their_gain, _) = gain_of(case, rows_N, mine_N), gain_of(case, rows_N, their_N)
        if tree.left_K[ours] < 0 or children[other] < 0:  # one is a leaf: the other's gain is at the threshold
            gain, their_gain = gain if children[other] < 0 else their_gain, max(case.rules.gamma, 1e-6)
        assert abs(gain - their_gain) <= precision
    return ties


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any shape, any rules: constant columns, equal columns, rows that count nothing, missing levels among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = draw(st.sampled_from([3000, 700, 150, 17, 3, 2, 1])), draw(st.sampled_from([9, 12, 7, 4, 3, 2, 1]))
    x_CN = rng.integers(0, 5, (width, rows)).astype(np.int8)
    kind = draw(st.sampled_from(["any", "constant", "equal", "two"]))
    if kind == "constant":
        x_CN[0] = rng.integers(0, 5)
    elif kind == "equal":
        x_CN[-1] = x_CN[0]
    elif kind == "two":
        x_CN[:] = np.where(x_CN > 2, 3, 1)
    if draw(st.booleans()):
        x_CN[rng.random(x_CN.shape) < draw(st.sampled_from([0.02, 0.5]))] = -1
    signal_N = sum(0.2 * (x_CN[c] - 2) * (x_CN[c // 2] - 2) for c in range(width))
    gradient_N = (signal_N + rng.normal(size=rows)).astype(np.float32)
    weights = draw(st.sampled_from(["none", "absent", "any"]))
    hessian_N = None
    if weights == "absent":
        hessian_N = (rng.random(rows) < 0.7).astype(np.float32)
    elif weights == "any":
        hessian_N = np.where(rng.random(rows) < 0.1, 0, rng.random(rows)).astype(np.float32)
    if hessian_N is not None:
        gradient_N = gradient_N * hessian_N
    # Bounds that no sum of Hessians meets, but where these are counts.
    rules = Rules(
        max_depth=draw(st.integers(1, 8)),
        eta=draw(st.sampled_from([0.3, 0.02, 1.0])),
        reg_lambda=draw(st.sampled_from([1.0, 0.0, 0.5, 50.0])),
        reg_alpha=draw(st.sampled_from([0.0, 0.0, 0.3, 4.0])),
        gamma=draw(st.sampled_from([0.0, 0.0, 0.2, 3.0])),
        min_child_weight=draw(st.sampled_from([1.0, 0.0, 0.0, 0.7431, 5.1357, 60.0])),
        learn_missing=draw(st.booleans()),
        gain_from_weight=draw(st.booleans()),
    )
    chosen = np.sort(rng.choice(width, draw(st.integers(1, width)), replace=False)) if draw(st.booleans()) else None
    return Case(x_CN, np.arange(width) if chosen is None else chosen, gradient_N, hessian_N, rules)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases())
def test_trees_are_those_of_xgboost(case: Case) -> None:
    case = dataclasses.replace(case, rules=dataclasses.replace(case.rules, gain_from_weight=FROM_WEIGHT))
    tree, margin_N = grown(case)
    theirs, output_N = of_xgboost(case)
    if compare(case, tree, theirs) == 0:
        np.testing.assert_array_equal(tree.left_K, theirs["left_children"])
        np.testing.assert_allclose(margin_N, output_N, rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases())
def test_trees_are_the_specifications_to_the_bit(case: Case) -> None:
    arguments = case.x_CN, case.gradient_N, case.hessian_N, case.columns_K, case.rules
    (wanted, output_N), (tree, given_N) = spec.grow_tree(*arguments), cpu.grow_tree(*arguments)
    for field in dataclasses.fields(Tree):
        np.testing.assert_array_equal(getattr(tree, field.name), getattr(wanted, field.name), err_msg=field.name)
    np.testing.assert_array_equal(given_N, output_N)


def test_the_comparison_finds_other_trees() -> None:
    """Other rules give another tree, and `compare` says so."""
    case = made(np.random.default_rng(3), 2000, 9, Rules(max_depth=4, min_child_weight=0.0))
    _, theirs = grown(case), of_xgboost(case)[0]
    for change in ({"reg_lambda": 3.0}, {"eta": 0.31}, {"gamma": 40.0}, {"max_depth": 3}, {"min_child_weight": 300.0}):
        other = dataclasses.replace(case, rules=dataclasses.replace(case.rules, **change))
        with pytest.raises(AssertionError):
            compare(case, grown(other)[0], theirs)


def made(rng: np.random.Generator, rows: int, width: int, rules: Rules, missing: float = 0.0) -> Case:
    x_CN = rng.integers(0, 5, (width, rows)).astype(np.int8)
    x_CN[rng.random(x_CN.shape) < missing] = -1
    gradient_N = (0.3 * (x_CN[0] - 2) * (x_CN[-1] - 2) + rng.normal(size=rows)).astype(np.float32)
    return Case(x_CN, np.arange(width), gradient_N, None, rules)


@pytest.mark.parametrize("weighed", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_neither_threads_nor_segments_nor_order_change_a_bit(missing: float, weighed: bool) -> None:
    rng = np.random.default_rng(5)
    case = made(rng, 70_001, 8, Rules(max_depth=6, learn_missing=True), missing)
    if weighed:
        hessian_N = rng.random(70_001).astype(np.float32)
        case = dataclasses.replace(case, hessian_N=hessian_N, gradient_N=case.gradient_N * hessian_N)
    tree, margin_N = grown(case)
    assert len(tree.left_K) > 100
    order_N = rng.permutation(70_001)
    shuffled = dataclasses.replace(
        case,
        x_CN=np.ascontiguousarray(case.x_CN[:, order_N]),
        gradient_N=case.gradient_N[order_N],
        hessian_N=None if case.hessian_N is None else case.hessian_N[order_N],
    )
    again, again_N = grown(shuffled, 2)
    for other, given_N in (grown(case, 3), grown(case, 1, (1, 1, 500, 40_000)), (again, again_N[np.argsort(order_N)])):
        np.testing.assert_array_equal(given_N, margin_N)
        for field in dataclasses.fields(Tree):
            np.testing.assert_array_equal(getattr(other, field.name), getattr(tree, field.name))


def test_a_million_rows_overflow_nothing() -> None:
    """The same row a million times, all gradients at their largest."""
    case = made(np.random.default_rng(1), 4, 2, Rules(max_depth=2, eta=1.0))
    x_CN, gradient_N = np.repeat(case.x_CN, 250_000, axis=1), np.full(1_000_000, 3.0, np.float32)
    tree, margin_N = grown(dataclasses.replace(case, x_CN=x_CN, gradient_N=gradient_N))
    assert len(tree.left_K) == 1
    assert tree.weight_K[0] == margin_N[0] == np.float32(-3_000_000 / 1_000_001)


def test_a_row_per_leaf() -> None:
    """Sixteen rows that four splits tell apart: leaves are the negative gradients."""
    bits = np.array([[row >> bit & 1 for row in range(16)] for bit in range(4)], dtype=np.int8)
    gradient_N = np.random.default_rng(2).normal(size=16).astype(np.float32)
    rules = Rules(max_depth=4, eta=1.0, reg_lambda=0.0, min_child_weight=0.0)
    tree, margin_N = grown(Case(bits, np.arange(4), gradient_N, None, rules))
    assert len(tree.left_K) == 31
    np.testing.assert_allclose(margin_N, -gradient_N, atol=1e-6)


BAD_VALUES = {
    "a level too high": (5, r"0\.\.4 or -1 for missing, given 5 at column 1, row 2, segment 0; XGBoost grows trees"),
    "a level too low": (-2, r"given -2 at column 1, row 2"),
}


@pytest.mark.parametrize("case", BAD_VALUES)
def test_values_that_are_no_levels_are_refused(case: str) -> None:
    value, message = BAD_VALUES[case]
    x_CN = np.zeros((2, 5), dtype=np.int8)
    x_CN[1, 2] = value
    with pytest.raises(ValueError, match=message):
        LevelColumns.of([x_CN])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"gradient_N": np.array([0, np.nan, 0], np.float32)},
            r"gradient_N: expected finite values, given nan .* row 1",
        ),
        ({"gradient_N": np.zeros(3)}, "gradient_N: expected dtype float32"),
        ({"gradient_N": np.zeros(2, np.float32)}, "gradient_N: expected 3 rows, given 2"),
        ({"hessian_N": np.array([0, 1, -1], np.float32)}, "hessian_N: expected 0 or more, given -1.0 at row 2"),
        ({"hessian_N": np.array([0.5, np.inf, 1], np.float32)}, "hessian_N: expected finite values"),
        ({"columns_K": np.array([0, 2])}, r"columns_C: expected ascending positions within 0\.\.1"),
        ({"columns_K": np.array([1, 0])}, "columns_C: expected ascending"),
    ],
)
def test_bad_rows_and_columns_are_refused(change: dict[str, Any], message: str) -> None:
    case = Case(np.zeros((2, 3), np.int8), np.arange(2), np.zeros(3, np.float32), None, Rules())
    with pytest.raises(ValueError, match=message):
        grown(dataclasses.replace(case, **change))


@pytest.mark.parametrize("change", [{"max_depth": 0}, {"max_depth": 13}, {"gamma": -1.0}, {"reg_lambda": np.nan}])
def test_bad_rules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))}: expected"):
        Rules(**change)


@pytest.mark.parametrize("name", ["gradient_N", "margin_N"])
def test_read_only_arrays_are_refused(name: str) -> None:
    arrays = {"gradient_N": np.zeros(3, np.float32), "margin_N": np.zeros(3, np.float32)}
    arrays[name].flags.writeable = False
    grower = Grower(LevelColumns.of([np.zeros((2, 3), np.int8)]), Rules(), 2)
    with pytest.raises(ValueError, match=f"{name}: expected an array that may be written to"):
        grower.grow(arrays["gradient_N"], None, np.arange(2), arrays["margin_N"])
