"""Trees on integer levels against XGBoost's own, grown on the same columns and rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eravane_kernels.cpu.growth import Grower
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules, Tree


@dataclass(frozen=True)
class Case:
    """What a tree is grown on."""

    x_CN: np.ndarray
    gradient_N: np.ndarray
    hessian_N: np.ndarray | None
    rules: Rules


def grown(case: Case, threads: int = 1, cuts: tuple[int, ...] = ()) -> tuple[Tree, np.ndarray]:
    """Our tree and its output; the rows in segments cut there."""
    parts = [np.ascontiguousarray(part) for part in np.split(case.x_CN, cuts, axis=1)]
    grower = Grower(LevelColumns.of(parts), case.rules, len(case.x_CN), threads)
    margin_N = np.zeros(case.x_CN.shape[1], dtype=np.float32)
    tree = grower.grow(case.gradient_N, case.hessian_N, np.arange(len(case.x_CN)), margin_N)
    return tree, margin_N


def of_xgboost(case: Case) -> tuple[dict[str, Any], np.ndarray]:
    """The tree that XGBoost grows from the same gradients, and its output."""
    rules, lowest = case.rules, 0 if case.rules.learn_missing else -1
    missing = -1 if case.rules.learn_missing else np.nan
    every = np.repeat(np.arange(lowest, 5, dtype=np.float32)[:, None], len(case.x_CN), axis=1)
    reference = xgb.QuantileDMatrix(every, max_bin=16, nthread=1)
    rows_NC = case.x_CN.T.astype(np.float32)
    matrix = xgb.QuantileDMatrix(rows_NC, ref=reference, max_bin=16, nthread=1, missing=missing)
    params = {
        "tree_method": "hist", "nthread": 1, "base_score": 0.0, "max_bin": 16, "max_depth": rules.max_depth,
        "eta": rules.eta, "lambda": rules.reg_lambda, "alpha": rules.reg_alpha, "gamma": rules.gamma,
        "min_child_weight": rules.min_child_weight,
    }  # fmt: skip
    booster = xgb.Booster(params, [matrix])
    hessian_N = np.ones_like(case.gradient_N) if case.hessian_N is None else case.hessian_N
    booster.boost(matrix, 0, grad=case.gradient_N, hess=hessian_N)
    model = json.loads(bytes(booster.save_raw("json")))
    output_N = booster.inplace_predict(rows_NC, missing=missing, predict_type="margin")
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


def compare(case: Case, tree: Tree, theirs: dict[str, Any]) -> None:
    """The same tree, node by node from the root, until a tie is broken otherwise."""
    children = np.array(theirs["left_children"])
    pending = [(0, 0, np.ones(case.x_CN.shape[1], dtype=bool))]
    while pending:
        ours, other, rows_N = pending.pop()
        np.testing.assert_allclose(tree.hessian_K[ours], theirs["sum_hessian"][other], rtol=2e-6, atol=1e-7)
        column, below = int(tree.column_K[ours]), float(tree.below_K[ours])
        their_column, their_below = theirs["split_indices"][other], theirs["split_conditions"][other]
        if tree.left_K[ours] < 0 and children[other] < 0:
            np.testing.assert_allclose(tree.weight_K[ours], their_below, rtol=1e-5, atol=1e-6)
            continue
        mine_N = rows_N & goes_left(case, column, below, bool(tree.missing_left_K[ours]))
        their_N = rows_N & goes_left(case, their_column, their_below, bool(theirs["default_left"][other]))
        if tree.left_K[ours] < 0 or children[other] < 0:  # one of them is a leaf: the gain is at the threshold
            gain, precision = gain_of(case, rows_N, their_N if tree.left_K[ours] < 0 else mine_N)
            assert min(abs(gain - max(case.rules.gamma, 1e-6)), abs(gain)) <= precision
            continue
        if column == their_column and (mine_N == their_N).all():
            assert (below, bool(tree.missing_left_K[ours])) == (
                min(their_below, 5.0),
                bool(theirs["default_left"][other]),
            )
            np.testing.assert_allclose(tree.gain_K[ours], theirs["loss_changes"][other], rtol=1e-4, atol=gain_of(case, rows_N, mine_N)[1])
            left, right = int(tree.left_K[ours]), int(tree.right_K[ours])
            assert tree.parent_K[left] == tree.parent_K[right] == ours
            pending += [(left, children[other], mine_N), (right, theirs["right_children"][other], rows_N & ~mine_N)]
        else:  # a tie, or nothing else
            (gain, precision), (their_gain, _) = gain_of(case, rows_N, mine_N), gain_of(case, rows_N, their_N)
            assert abs(gain - their_gain) <= precision


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any shape, any rules: constant columns, equal columns, rows that count nothing, missing levels among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, width = draw(st.sampled_from([1, 2, 3, 17, 200, 1500])), draw(st.sampled_from([1, 2, 3, 4, 7, 12]))
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
    gradient_N = (0.1 * (x_CN[0] - 2) + rng.normal(size=rows)).astype(np.float32)
    weights = draw(st.sampled_from(["none", "absent", "any"]))
    hessian_N = None
    if weights == "absent":
        hessian_N = (rng.random(rows) < 0.7).astype(np.float32)
    elif weights == "any":
        hessian_N = np.where(rng.random(rows) < 0.1, 0, rng.random(rows)).astype(np.float32)
    if hessian_N is not None:
        gradient_N = gradient_N * hessian_N
    # Odd bounds, which no sum of Hessians meets but by rounding.
    rules = Rules(
        max_depth=draw(st.integers(1, 7)),
        eta=draw(st.sampled_from([0.02, 0.3, 1.0])),
        reg_lambda=draw(st.sampled_from([0.0, 0.5, 1.0, 50.0])),
        reg_alpha=draw(st.sampled_from([0.0, 0.0, 0.3, 4.0])),
        gamma=draw(st.sampled_from([0.0, 0.0, 0.2, 3.0])),
        min_child_weight=draw(st.sampled_from([0.0, 0.7431, 1.0, 5.1357, 60.0])),
        learn_missing=draw(st.booleans()),
    )
    return Case(x_CN, gradient_N, hessian_N, rules)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases())
def test_trees_are_those_of_xgboost(case: Case) -> None:
    tree, margin_N = grown(case)
    theirs, output_N = of_xgboost(case)
    compare(case, tree, theirs)
    same = tree.left_K.tolist() == theirs["left_children"] and all(
        tree.left_K[node] < 0 or tree.column_K[node] == theirs["split_indices"][node] for node in range(len(tree.left_K))
    )
    if same and (np.minimum(theirs["split_conditions"], 5)[tree.left_K >= 0] == tree.below_K[tree.left_K >= 0]).all():
        np.testing.assert_allclose(margin_N, output_N, rtol=1e-5, atol=1e-6)
