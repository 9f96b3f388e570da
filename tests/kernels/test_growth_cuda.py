"""The grower of cu/grow.cu against its specification, on the emulator and on a GPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from eravane_kernels.cuda import growth as cuda
from eravane_kernels.cuda.runtime import active
from eravane_kernels.growth import Rules, Tree
from eravane_kernels.spec import growth as spec

from .emulator.devices import ANY_DEVICE, DEVICES, on

KINDS = {
    "plain": ({}, 0.0, "none"),
    "missing": ({}, 0.1, "none"),
    "learned": ({"learn_missing": True, "reg_alpha": 0.5}, 0.1, "absent"),
    "weighed": ({"min_child_weight": 3.3, "reg_lambda": 0.5, "eta": 0.02}, 0.05, "any"),
    "free": ({"min_child_weight": 0.0, "reg_lambda": 0.0, "learn_missing": True}, 0.3, "any"),
    "strict": ({"gamma": 2.0}, 0.0, "absent"),
}


def made(kind: str, rows: int, width: int, depth: int) -> tuple:
    rng, (changes, missing, weights) = np.random.default_rng(rows), KINDS[kind]
    x_CN = rng.integers(0, 5, (width, rows)).astype(np.int8)
    x_CN[rng.random(x_CN.shape) < missing] = -1
    x_CN[-1] = 3
    gradient_N = (0.3 * (x_CN[0] - 2) * (x_CN[width // 2] - 2) + rng.normal(size=rows)).astype(np.float32)
    hessian_N = None
    if weights != "none":
        hessian_N = rng.random(rows).astype(np.float32)
        hessian_N = (hessian_N > 0.3).astype(np.float32) if weights == "absent" else hessian_N
        gradient_N *= hessian_N
    columns_K = np.flatnonzero(rng.random(width) < 0.8).astype(np.int64)
    columns_K = columns_K if len(columns_K) else np.zeros(1, dtype=np.int64)
    return x_CN, gradient_N, hessian_N, columns_K, Rules(max_depth=depth, **changes)


def equal(given: tuple, wanted: tuple) -> None:
    for field in dataclasses.fields(Tree):
        np.testing.assert_array_equal(getattr(given[0], field.name), getattr(wanted[0], field.name), err_msg=field.name)
    np.testing.assert_array_equal(active().host(given[1]), wanted[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", DEVICES)
def test_equals_the_specification(kind: str, device: object) -> None:
    arguments = made(kind, 2_300, 7, 4)
    with on(device):
        equal(cuda.grow_tree(*arguments), spec.grow_tree(*arguments))


@pytest.mark.parametrize(("rows", "width", "depth"), [(1, 1, 1), (3, 2, 5), (33, 12, 3), (4_097, 3, 2), (700, 2, 8)])
@pytest.mark.parametrize("kind", ["plain", "free"])
@pytest.mark.parametrize("device", ANY_DEVICE)
def test_any_shape(kind: str, rows: int, width: int, depth: int, device: object) -> None:
    arguments = made(kind, rows, width, depth)
    with on(device):
        equal(cuda.grow_tree(*arguments), spec.grow_tree(*arguments))
