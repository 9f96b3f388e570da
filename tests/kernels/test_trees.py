"""Rows walked down trees of nodes: the CPU twin against the specification, and trees that are refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from eravane_kernels import cpu, cuda, spec
from eravane_kernels.cuda import leaves
from tests.support.emulator.cases import CASES, EDGES, grown, offsets
from tests.support.emulator.devices import on


@pytest.mark.parametrize("case", ["forest_levels", "forest_floats"])
def test_the_twin_gives_the_bits_of_the_specification(case: str) -> None:
    (*trees, total_N), _ = CASES[case].arguments(np.random.default_rng(5), offsets(EDGES))
    found_N = cpu.add_trees(*trees, total_N.copy())
    np.testing.assert_array_equal(found_N, spec.add_trees(*trees, total_N.copy()))
    assert (found_N != total_N).any()


@pytest.mark.parametrize("case", ["leaves_levels", "leaves_floats"])
def test_leaves_are_renewed_with_the_bits_of_the_specification(case: str) -> None:
    arguments, _ = CASES[case].arguments(np.random.default_rng(5), offsets(EDGES))
    number_K, margin_BN = cpu.renew_leaves(*arguments)
    expected_K, expected_BN = spec.renew_leaves(*arguments)
    np.testing.assert_array_equal(number_K, expected_K)
    np.testing.assert_array_equal(margin_BN, expected_BN)
    node_K4, tree_T2, first_B1 = arguments[1], arguments[3], arguments[4]
    leaf_K = node_K4[:, 0] == spec.LEAF
    changed_K = number_K != node_K4.view(np.float32)[:, 1]
    assert 0 < changed_K.sum() < leaf_K.sum()
    assert not changed_K[~leaf_K].any()
    unlabelled = slice(*tree_T2[first_B1[1:3] - [0, 1], [0, 1]])
    assert not changed_K[unlabelled].any()


@pytest.mark.parametrize("which", [slice(None, None, 2), slice(None, None, -2)], ids=["apart", "backwards"])
@pytest.mark.parametrize("module", [cpu, cuda])
def test_columns_may_lie_apart_and_backwards(module: ModuleType, which: slice) -> None:
    whole_CN = np.random.default_rng(2).normal(size=(8, 700)).astype(np.float32)
    node_K4, root_T = grown(np.random.default_rng(3), 4, 20), np.zeros(1, np.int32)
    expected_N = spec.add_trees(whole_CN[which, 5:600], node_K4, root_T, np.zeros(595, np.float32))
    with on(1) as runtime:
        x_CN = whole_CN if module is cpu else runtime.xp.asarray(whole_CN)
        found_N = module.add_trees(x_CN[which, 5:600], node_K4, root_T, np.zeros(595, np.float32))
        np.testing.assert_array_equal(runtime.host(found_N) if module is cuda else found_N, expected_N)


@pytest.mark.parametrize("module", [spec, cpu, cuda])
def test_leaves_of_no_rows_models_and_labels_stay(module: ModuleType) -> None:
    node_K4, tree_T2 = grown(np.random.default_rng(3), 4, 20), np.array([[0, 41]], np.int32)
    old_K = node_K4.view(np.float32)[:, 1].astype(np.float64)
    for models, rows in ((1, 0), (0, 5), (1, 5)):
        first_B1 = np.arange(models + 1)
        given = np.full((models, rows), np.nan, np.float32), np.ones(rows, np.float32), np.ones((models, rows))
        with on(0) as runtime:
            found = module.renew_leaves(
                np.zeros((4, rows), np.int8), node_K4, old_K, tree_T2[:models], first_B1, *given, 0.1, 1.0, 0.5
            )
            number_K, margin_BN = map(runtime.host, found) if module is cuda else found
        np.testing.assert_array_equal(number_K, node_K4.view(np.float32)[:, 1])
        assert margin_BN.shape == (models, rows)


def test_listed_rows_that_take_little_memory_give_the_same_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, _ = CASES["leaves_levels"].arguments(np.random.default_rng(6), offsets((40,)))
    expected_K, expected_BN = spec.renew_leaves(*arguments)
    monkeypatch.setattr(leaves, "LISTED_BYTES", 4 * 3 * 8 * arguments[0].shape[1])
    with on(2) as runtime:
        number_K, margin_BN = map(runtime.host, cuda.renew_leaves(*arguments))
    np.testing.assert_array_equal(number_K, expected_K)
    np.testing.assert_array_equal(margin_BN, expected_BN)


LOOSE: dict[str, tuple[Any, Any, str]] = {
    "a split that leads into another tree": ([[0, 3], [3, 6]], (0, 2, 4), "within its tree"),
    "trees that share a node": ([[0, 4], [3, 6]], None, "share none"),
    "a tree without a node": ([[0, 3], [6, 6]], None, "root_T: expected nodes within|share none"),
    "a tree beyond the nodes": ([[0, 3], [3, 7]], None, "share none"),
}


@pytest.mark.parametrize("what", LOOSE)
@pytest.mark.parametrize("module", [spec, cpu, cuda])
def test_trees_that_would_write_into_others_are_refused(module: ModuleType, what: str) -> None:
    tree, node, message = LOOSE[what]
    node_K4 = np.tile(np.array([[0, 0, 1, 2], [spec.LEAF, 0, 0, 0], [spec.LEAF, 0, 0, 0]], np.int32), (2, 1))
    node_K4[3, 2:] = 4, 5
    given = np.zeros((1, 9), np.float32), np.ones(9, np.float32), np.zeros((1, 9)), 0.1, 1.0, 0.5
    first_B1, x_CN, old_K = np.array([0, 2]), np.zeros((4, 9), np.int8), np.zeros(6)
    with on(0):
        module.renew_leaves(x_CN, node_K4, old_K, np.array([[0, 3], [3, 6]], np.int32), first_B1, *given)
        with pytest.raises(ValueError, match="first_B1: expected to end at the 2 trees given, given 1"):
            module.renew_leaves(x_CN, node_K4, old_K, np.array([[0, 3], [3, 6]], np.int32), first_B1 // 2, *given)
        if node is not None:
            node_K4[node[:2]] = node[2]
        with pytest.raises(ValueError, match=message):
            module.renew_leaves(x_CN, node_K4, old_K, np.array(tree, np.int32), first_B1, *given)


REFUSED: dict[str, tuple[Any, str]] = {
    "a column that does not exist": (((0, 0), 2 * 4), "node_K4: expected columns within 0..3, given 4 to 4"),
    "a node that does not exist": (((0, 3), 3), "node_K4: expected nodes below a split after it and within 0..2"),
    "a node above its split": (((0, 2), 0), "node_K4: expected nodes below a split after it and within 0..2"),
    "a column below 0": (((0, 0), -2), "node_K4: expected columns within 0..3, given -1 to -1"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("module", [spec, cpu, cuda])
def test_trees_that_would_read_beside_memory_are_refused(module: ModuleType, what: str) -> None:
    (place, value), message = REFUSED[what]
    node_K4 = np.array([[0, 0, 1, 2], [spec.LEAF, 0, 0, 0], [spec.LEAF, 0, 0, 0]], np.int32)
    x_CN, total_N = np.zeros((4, 5), np.int8), np.zeros(5, np.float32)
    with on(0):
        module.add_trees(x_CN, node_K4, np.zeros(1, np.int32), total_N)
        with pytest.raises(ValueError, match=r"root_T: expected nodes within 0\.\.2, given 3 to 3"):
            module.add_trees(x_CN, node_K4, np.full(1, 3, np.int32), total_N)
        node_K4[place] = value
        with pytest.raises(ValueError, match=message.replace(".", r"\.")):
            module.add_trees(x_CN, node_K4, np.zeros(1, np.int32), total_N)
