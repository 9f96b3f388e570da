"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# No test asks the real tournament anything; those that need one set the address of a double.
os.environ["ERAVANE_TOURNAMENT"] = "off"

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where no CUDA device works."""
    reason = _no_gpu()
    if reason is None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_gpu() -> str | None:
    try:
        import cupy
    except ImportError:
        return "needs a GPU: cupy is not installed"
    return None if cupy.cuda.is_available() else "needs a GPU: cupy finds no CUDA device"


@pytest.fixture(scope="session")
def sample_2018() -> Path:
    """The 1 % sample of real Numerai rows of 2018, where it lies beside the checkout."""
    path = SHARED / "data" / "numerai-2018-sample"
    if not path.is_dir():
        pytest.skip("the 2018 sample of real rows is not beside this checkout")
    return path


@pytest.fixture(scope="session")
def real_features_json() -> Path:
    """The features.json of v5.3, where it lies beside the checkout."""
    path = SHARED / "data" / "numerai-v5.3-features.json"
    if not path.is_file():
        pytest.skip("the real features.json of v5.3 is not beside this checkout")
    return path
