"""Rows walked down trees of nodes: the CPU twin against the specification, and trees that are refused."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from eravane_kernels import cpu, cuda, spec
from tests.support.emulator.cases import CASES, EDGES, grown, offsets
from tests.support.emulator.devices import on


@pytest.mark.parametrize("case", ["forest_levels", "forest_floats"])
def test_the_twin_gives_the_bits_of_the_specification(case: str) -> None:
    (*trees, total_N), _ = CASES[case].arguments(np.random.default_rng(5), offsets(EDGES))
    found_N = cpu.add_trees(*trees, total_N.copy())
    np.testing.assert_array_equal(found_N, spec.add_trees(*trees, total_N.copy()))
    assert (found_N != total_N).any()


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
