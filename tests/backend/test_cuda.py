"""The GPU backend's copying, chunk by chunk: on doubles of its libraries, and on the device where there is one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eravane.backend.protocol import DeviceTable
from eravane.core.errors import DataError, DeviceError
from eravane.data.ingest import ingest
from eravane.data.store import placement
from eravane.data.store.store import EraStore
from tests.backend import double
from tests.data.store.made import FEATURES, Dataset


@pytest.fixture(params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, its buffers so small that every copy takes many of them."""
    if request.param == "gpu":
        module = importlib.import_module("eravane.backend.cuda")
        monkeypatch.setattr(module, "STAGING_BYTES", 700)
        yield module
        return
    with double.installed():
        module = importlib.import_module("eravane.backend.cuda")
        monkeypatch.setattr(module, "STAGING_BYTES", 700)
        yield module


@pytest.fixture(scope="module", params=[False, True], ids=["int8", "float32"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EraStore:
    folder = tmp_path_factory.mktemp("device")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "SEGMENT_ROWS", 100)
        return ingest(Dataset.make(floats=request.param).write(folder / "data"), folder / "store")


COLUMN_LISTS = [FEATURES, FEATURES[3:7], ["feature_09", "feature_01", "feature_02", "feature_07"]]


def said(module: Any, pool: str = "none") -> tuple[Any, list[str]]:
    told: list[str] = []
    return module.CudaBackend(pool, told.append), told


def test_the_device_and_its_memory_are_said(cuda: Any) -> None:
    _, told = said(cuda)
    assert len(told) == 1
    assert told[0].startswith("device cuda: ")
    assert "GB" in told[0]
    assert "memory pool" in told[0]


def test_the_probe_runs_a_kernel(cuda: Any) -> None:
    assert cuda.probe() is None


@pytest.mark.parametrize("columns", COLUMN_LISTS)
def test_windows_arrive_whole_through_pinned_memory(cuda: Any, store: EraStore, columns: list[str]) -> None:
    backend, _ = said(cuda)
    window = store.window(2, 13, columns)
    parts = zip([piece.start for piece in window.pieces], window.parts, strict=True)
    matrix = backend.load(parts, (len(columns), window.index.rows), store.dtype)
    np.testing.assert_array_equal(backend.to_host(matrix), window.frame().values)


@pytest.mark.parametrize("columns", COLUMN_LISTS)
def test_windows_arrive_whole_from_the_files(cuda: Any, store: EraStore, columns: list[str]) -> None:
    pytest.importorskip("kvikio", reason="needs kvikio")
    backend, _ = said(cuda)
    window = store.window(3, 14, columns)
    matrix = backend.read(window.file_blocks(), (len(columns), window.index.rows), store.dtype)
    np.testing.assert_array_equal(backend.to_host(matrix), window.frame().values)


@pytest.mark.parametrize("direct", [False, True])
def test_a_window_takes_the_way_that_is_quicker(
    cuda: Any, store: EraStore, direct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = said(cuda)
    monkeypatch.setattr(type(backend), "direct", direct)
    window = store.window(1, 9, FEATURES[2:])
    frame = window.on_device(backend)
    np.testing.assert_array_equal(backend.to_host(frame.values), window.frame().values)
    assert frame.columns == window.columns
    assert frame.index is window.index


@pytest.mark.parametrize("floats", [False, True])
def test_parquet_is_read_in_chunks_into_one_matrix(cuda: Any, tmp_path: Path, floats: bool) -> None:
    backend, _ = said(cuda)
    made = Dataset.make(floats=floats)
    path = made.write(tmp_path / "data") / "validation.parquet"
    names = ["feature_05", "feature_00", "feature_11"]
    matrix = backend.read_parquet(path, names, "float32" if floats else "int8")
    np.testing.assert_array_equal(backend.to_host(matrix), made.validation[names].to_numpy().T)


def test_without_cudf_a_table_is_the_matrix_itself(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, _ = said(cuda)
    find = cuda.importlib.util.find_spec
    monkeypatch.setattr(cuda.importlib.util, "find_spec", lambda name: None if name == "cudf" else find(name))
    matrix = cuda.cp.asarray(np.arange(12, dtype=np.int8).reshape(3, 4))
    table = backend.table(matrix, ["a", "b", "c"])
    assert table.values_CN is matrix
    assert table.names == ("a", "b", "c")


class Frame:
    """As much of a cuDF frame as is looked at: names, and columns that speak the protocol of CUDA arrays."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        """Names."""
        return list(self._columns)

    def __getitem__(self, name: str) -> Any:
        column = self._columns[name]
        face = getattr(column, "__cuda_array_interface__", None) or column.__array_interface__
        return SimpleNamespace(__cuda_array_interface__=face, column=column)


@pytest.mark.parametrize(("columns", "step"), [([0, 1, 2], 1), ([1], 1), ([0, 2, 4], 2)])
def test_columns_of_a_frame_are_taken_in_place(cuda: Any, columns: list[int], step: int) -> None:
    matrix = cuda.cp.asarray(np.arange(60, dtype=np.int8).reshape(6, 10))
    found, names = cuda.matrix_of(Frame({f"c{number}": matrix[number] for number in columns}))
    wanted = matrix[columns[0] : columns[-1] + 1 : step]
    np.testing.assert_array_equal(found.get(), wanted.get())
    assert names == tuple(f"c{number}" for number in columns)
    wanted[0] = 99
    assert (found.get()[0] == 99).all(), "a copy would not change with the matrix"


@pytest.mark.parametrize("columns", [[0, 1, 3], [2, 1, 0], [1, 1]])
def test_columns_that_lie_unevenly_are_copied(cuda: Any, columns: list[int]) -> None:
    matrix = cuda.cp.asarray(np.arange(60, dtype=np.int8).reshape(6, 10))
    found, _ = cuda.matrix_of(Frame({f"c{place}": matrix[number] for place, number in enumerate(columns)}))
    np.testing.assert_array_equal(found.get(), matrix.get()[columns])
    assert found.dtype == np.int8


def test_a_table_without_cudf_is_its_matrix(cuda: Any) -> None:
    matrix = cuda.cp.asarray(np.zeros((2, 3), np.int8))
    found, names = cuda.matrix_of(DeviceTable(matrix, ("a", "b")))
    assert found is matrix
    assert names == ("a", "b")


def test_nulls_become_nan_or_are_refused(cuda: Any, tmp_path: Path) -> None:
    backend, _ = said(cuda)
    path = tmp_path / "nulls.parquet"
    column = pd.array([1, None, 3, 4, None] * 50, dtype="Int8")
    pd.DataFrame({"a": column, "b": np.arange(250, dtype=np.float64)}).to_parquet(path)
    matrix = backend.to_host(backend.read_parquet(path, ["b", "a"], "float32"))
    np.testing.assert_array_equal(matrix[0], np.arange(250))
    np.testing.assert_array_equal(matrix[1], column.to_numpy(np.float32, na_value=np.nan))
    with pytest.raises(DataError, match=r"nulls\.parquet: column 'a'.*missing"):
        backend.read_parquet(path, ["a"], "int8")
    with pytest.raises(DataError, match=r"lacks 1 columns, the first is 'c'"):
        backend.read_parquet(path, ["a", "c"], "float32")


def test_eras_stream_in_order_one_ahead(cuda: Any, store: EraStore) -> None:
    backend, _ = said(cuda)
    window, asked = store.window(1, 14, FEATURES[1:9]), []

    def frames() -> Iterator[Any]:
        for frame in window:
            asked.append(frame.index.first)
            yield frame

    for number, frame in enumerate(backend.stream(frames()), start=1):
        assert frame.index.first == number
        assert len(asked) == min(number + 1, 14)
        np.testing.assert_array_equal(backend.to_host(frame.values), window.era(number).values)
        assert frame.ids.equals(window.era(number).ids)


def test_what_does_not_fit_is_refused_with_sizes(cuda: Any) -> None:
    backend, _ = said(cuda)
    rows = backend.room() // 100 + (1 << 20)
    with pytest.raises(DeviceError, match=r"a matrix of 100 columns x \d+ rows needs .* GB.*stream era by era"):
        backend.load([], (100, rows), "int8")


def test_kernel_results_come_to_the_host(cuda: Any) -> None:
    from eravane_kernels import Stats

    one = cuda.cp.asarray(np.arange(6.0).reshape(2, 3))
    stats = Stats(*[one] * 8)
    found = cuda._on_host((one, stats, 3, None))
    assert type(found[0]) is np.ndarray
    assert found[2:] == (3, None)
    assert type(found[1].mean_EC) is np.ndarray
    np.testing.assert_array_equal(found[1].quantiles_QEC, np.arange(6.0).reshape(2, 3))
