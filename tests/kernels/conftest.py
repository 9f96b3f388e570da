"""One body for every implementation of the kernels: `ops` is the specification, the CPU twin, then CUDA.

CUDA twice: on the emulator, which runs the kernels and their launchers without a GPU, and on a GPU.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, is_dataclass, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.support.emulator.devices import on

EDGE_SIZES = (0, 1, 2, 31, 32, 33, 255, 256, 20_000)


class Ops:
    """The functions of one implementation, with results brought back to NumPy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._module: ModuleType = importlib.import_module(f"eravane_kernels.{'cuda' if name == 'emulated' else name}")
        self._place = partial(on, 2) if name == "emulated" else nullcontext

    def __getattr__(self, function: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            with self._place():
                return _home(getattr(self._module, function)(*args, **kwargs))

        return call


def _home(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(_home(part) for part in result)
    if is_dataclass(result) and not isinstance(result, type):
        return replace(result, **{field.name: _home(getattr(result, field.name)) for field in fields(result)})
    return result.get() if hasattr(result, "get") else result


@pytest.fixture(params=["spec", "cpu", "emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def ops(request: pytest.FixtureRequest) -> Ops:
    return Ops(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(scope="session")
def edge_offsets() -> np.ndarray:
    """Eras of the sizes where kernels break."""
    return np.concatenate([[0], np.cumsum(EDGE_SIZES)]).astype(np.int64)
