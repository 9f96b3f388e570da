"""Where a test of the launchers runs: on the emulator, in each order of threads, and on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from eravane_kernels.cuda.runtime import Runtime, cupy_runtime, use

from .compiler import compiler_missing
from .runtime import ORDERS, emulated_runtime

GPU = pytest.param("gpu", id="gpu", marks=pytest.mark.gpu)
EMULATED = [pytest.param(order, id=f"order{order}") for order in ORDERS]
DEVICES = [*EMULATED, GPU]
"""All of them."""
ANY_DEVICE = [EMULATED[2], GPU]
"""The emulator once, shuffled, and a GPU."""


@contextmanager
def on(device: Any, **emulated: Any) -> Iterator[Runtime]:
    """Makes the launchers work there; skips the test, with the reason, where nothing can be compiled for the CPU."""
    if device != "gpu" and (reason := compiler_missing()):
        pytest.skip(reason)
    runtime = cupy_runtime() if device == "gpu" else emulated_runtime(device, **emulated)
    with use(runtime):
        yield runtime
