"""The GPU backend's copying, chunk by chunk: on doubles of its libraries, and on the device where there is one."""

from __future__ import annotations

import importlib
import sys
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from eravane.backend.protocol import DeviceTable, taken
from eravane.core.errors import DeviceError, OutOfDeviceMemoryError
from eravane.data.ingest import ingest
from eravane.data.resident import Resident, residence
from eravane.data.store import placement
from eravane.data.store import window as window_module
from eravane.data.store.store import EraStore
from tests.support import device_double as double
from tests.support.made_store import FEATURES, Dataset


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


def host(values: Any) -> np.ndarray:
    """The values as a NumPy array."""
    return np.asarray(values.get() if hasattr(values, "get") else values)


COLUMN_LISTS = [FEATURES, FEATURES[3:7], ["feature_09", "feature_01", "feature_02", "feature_07"]]


def opened(module: Any, pool: str = "none") -> tuple[Any, list[str]]:
    notes: list[str] = []
    return module.CudaBackend(pool, notes.append), notes


def test_the_device_and_its_memory_are_noted(cuda: Any) -> None:
    _, notes = opened(cuda)
    assert len(notes) == 1
    assert notes[0].startswith("device cuda: ")
    assert "GB" in notes[0]
    assert "memory pool" in notes[0]


def test_the_probe_runs_a_kernel(cuda: Any) -> None:
    assert cuda.probe() is None


@pytest.mark.parametrize("columns", COLUMN_LISTS)
def test_windows_arrive_whole_through_pinned_memory(cuda: Any, store: EraStore, columns: list[str]) -> None:
    backend, _ = opened(cuda)
    window = store.window(2, 13, columns)
    parts = zip([piece.start for piece in window.pieces], window.parts, strict=True)
    matrix = backend.load(parts, (len(columns), window.index.rows), store.dtype)
    np.testing.assert_array_equal(host(matrix), window.frame().values)


@pytest.mark.parametrize("columns", COLUMN_LISTS)
def test_windows_arrive_whole(cuda: Any, store: EraStore, columns: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    backend, _ = opened(cuda)
    monkeypatch.setattr(window_module, "SENT_BYTES", 900)
    window = store.window(3, 14, columns)
    matrix = backend.hold((len(columns), window.index.rows), store.dtype)
    window.send(backend, matrix)
    np.testing.assert_array_equal(host(matrix), window.frame().values)
    assert matrix.strides[0] % 128 == 0


def test_without_cudf_the_device_says_what_decodes_nothing(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("eravane.backend.cuda_parquet")
    find = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "pylibcudf" else find(name))
    with pytest.raises(DeviceError, match=r"pylibcudf, which is not installed.*--device cpu"):
        opened(cuda)[0].decoder()


def test_a_table_is_the_matrix_itself(cuda: Any) -> None:
    """No frame of cuDF between: its columns would be copied on the way into XGBoost."""
    backend, _ = opened(cuda)
    matrix = cuda.cp.asarray(np.arange(12, dtype=np.int8).reshape(3, 4))
    table = backend.table(matrix, ["a", "b", "c"])
    assert isinstance(table, DeviceTable)
    assert table.values_CN is matrix
    assert table.names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("places", "view"), [([0, 1, 2], True), ([4], True), ([1, 3, 5], True), ([3, 1], False), ([0, 1, 5], False)]
)
def test_columns_of_a_matrix_are_views_where_they_lie_evenly(cuda: Any, places: list[int], view: bool) -> None:
    backend, _ = opened(cuda)
    matrix = backend.hold((6, 50), "int8")
    matrix[...] = cuda.cp.asarray(np.arange(300).reshape(6, 50).astype(np.int8))
    found = backend.columns_of(matrix, np.array(places), slice(5, 25))
    np.testing.assert_array_equal(host(found), host(matrix)[places, 5:25])
    matrix[places[0], 5] = 99
    assert (int(host(found)[0, 0]) == 99) == view


def test_memory_that_runs_out_is_reclaimed_and_then_named(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend, _ = opened(cuda)
    calls: list[str] = []
    monkeypatch.setattr(backend, "reclaim", lambda: calls.append("reclaim"))

    def take() -> str:
        calls.append("take")
        if calls.count("take") < 2:
            raise MemoryError("Out of memory allocating 9,999 bytes")
        return "room"

    assert taken(take, "a matrix", lambda: backend) == "room"
    assert calls == ["take", "reclaim", "take"]
    with pytest.raises(OutOfDeviceMemoryError, match=r"a matrix did not fit on the GPU, .* GB are free; take fewer"):
        taken(lambda: _full(0), "a matrix", lambda: backend)


def test_a_kernel_that_runs_out_of_memory_is_called_again_and_then_says_so(
    cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = opened(cuda)
    calls: list[str] = []

    def rank(values: Any) -> Any:
        calls.append("rank")
        if len(calls) < 2:
            raise MemoryError
        return values

    monkeypatch.setattr(backend, "reclaim", lambda: calls.append("reclaim"))
    ops = cuda.Retried(SimpleNamespace(rank=rank, gram=_full), backend)
    assert ops.rank(7) == 7
    assert calls == ["rank", "reclaim", "rank"]
    with pytest.raises(OutOfDeviceMemoryError, match="what gram works with did not fit"):
        ops.gram(7)


def _full(_: Any) -> None:
    raise MemoryError


def test_eras_stream_in_order_one_ahead(cuda: Any, store: EraStore) -> None:
    backend, _ = opened(cuda)
    window, asked = store.window(1, 14, FEATURES[1:9]), []

    def parts() -> Iterator[Any]:
        for frame in window:
            asked.append(frame.index.first)
            yield frame.values

    for number, values in enumerate(backend.stream(parts()), start=1):
        assert len(asked) == min(number + 1, 14)
        np.testing.assert_array_equal(host(values), window.era(number).values)


@pytest.mark.parametrize("shape", [(0, 9), (9, 0)])
def test_matrices_without_cells_are_sent(cuda: Any, shape: tuple[int, int]) -> None:
    backend, _ = opened(cuda)
    empty = np.empty(shape, dtype=np.int8)
    full = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert [found.shape for found in backend.stream([empty, full, empty])] == [shape, (2, 3), shape]
    assert backend.load([(0, empty)], shape, "int8").shape == shape


@pytest.mark.parametrize("cuda", ["double"], indirect=True)
def test_a_store_larger_than_the_device_is_read_era_by_era(
    cuda: Any, store: EraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for the widest three eras: one at work, one arriving, one that its reader has not given up yet."""
    backend, _ = opened(cuda)
    widest = int(store.index.counts.max()) * np.dtype(store.dtype).itemsize
    largest = len(FEATURES) * -(-widest // 128) * 128
    assert largest * 3 < len(FEATURES) * store.index.rows * np.dtype(store.dtype).itemsize
    alive: list[weakref.ref[Any]] = []

    def room() -> int:
        return 3 * largest - sum(one().nbytes for one in alive if one() is not None)

    hold = backend.hold

    def held(shape: tuple[int, int], dtype: str) -> Any:
        made = hold(shape, dtype)
        alive.append(weakref.ref(made))
        return made

    monkeypatch.setattr(backend, "room", room)
    monkeypatch.setattr(backend, "hold", held)
    kept = residence(store, "cuda", backend.room(), len(FEATURES), len(FEATURES))
    assert kept.mode == "eras"
    resident = Resident(store, backend, kept)
    for era, values in resident.eras(FEATURES, 1, 14):
        np.testing.assert_array_equal(host(values), store.window(era, era).era(era).values)
        del values
    assert resident.sent_bytes == len(FEATURES) * store.index.rows * np.dtype(store.dtype).itemsize
    with pytest.raises(OutOfDeviceMemoryError, match="take fewer eras or columns"):
        resident.window(FEATURES, 1, 14)


def test_what_does_not_fit_is_refused_with_sizes(cuda: Any) -> None:
    backend, _ = opened(cuda)
    rows = backend.room() // 100 + (1 << 20)
    with pytest.raises(DeviceError, match=r"a matrix of 100 columns x \d+ rows needs .* GB.*take fewer eras"):
        backend.load([], (100, rows), "int8")


def test_arrays_of_a_call_that_failed_are_gone_before_it_is_tried_again(
    cuda: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = opened(cuda)
    made: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def take() -> int:
        mine = cuda.cp.zeros(9, dtype=np.float32)
        made.append(weakref.ref(mine))
        if len(made) == 1:
            raise MemoryError
        return int(mine.size)

    monkeypatch.setattr(backend, "reclaim", lambda: alive.append(made[0]() is not None))
    assert taken(take, "an array", lambda: backend) == 9
    assert alive == [False]


def test_blocks_that_torch_caches_are_given_back(cuda: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    for ready in (False, True):
        torch = SimpleNamespace(
            cuda=SimpleNamespace(is_initialized=lambda ready=ready: ready, empty_cache=lambda: asked.append("emptied"))
        )
        monkeypatch.setitem(sys.modules, "torch", torch)
        opened(cuda)[0].reclaim()
        assert asked == ["emptied"] * ready


@pytest.fixture
def under_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, set[Any]]]:
    """A backend on doubles, and the streams on which something has begun that nobody has waited for."""
    with double.installed():
        import cupy

        busy: set[Any] = set()

        class Stream(double.Stream):
            def __enter__(self) -> Any:
                busy.add(self)
                return self

            def synchronize(self) -> None:
                busy.discard(self)

        monkeypatch.setattr(cupy.cuda, "Stream", Stream)
        yield opened(importlib.import_module("eravane.backend.cuda"))[0], busy


def test_nothing_is_under_way_once_a_stream_is_left_early(under_way: tuple[Any, set[Any]]) -> None:
    backend, busy = under_way
    arrivals = backend.stream(np.full((2, 9), number, np.int8) for number in range(5))
    next(arrivals)
    assert busy, "the next matrix is sent while the first is used"
    arrivals.close()
    assert not busy


def test_nothing_is_under_way_once_filling_has_failed(under_way: tuple[Any, set[Any]]) -> None:
    backend, busy = under_way

    def parts() -> Iterator[Any]:
        yield 0, np.zeros((2, 5), np.int8)
        raise OSError("the file is gone")

    with pytest.raises(OSError, match="the file is gone"):
        backend.load(parts(), (2, 9), "int8")
    assert not busy


def test_a_buffer_or_an_array_that_does_not_fit_is_refused_in_our_words(
    under_way: tuple[Any, set[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, _ = under_way
    import cupy

    def full(*_: Any, **__: Any) -> Any:
        raise MemoryError("out of memory")

    matrix = backend.hold((2, 9), "int8")
    monkeypatch.setattr(cupy, "empty", full)
    monkeypatch.setattr(cupy, "asarray", full)
    with pytest.raises(OutOfDeviceMemoryError, match="an array that is sent did not fit on the GPU"):
        backend.to_device(np.zeros(3))
    with pytest.raises(OutOfDeviceMemoryError, match="a buffer to send through did not fit on the GPU"):
        backend.fill(matrix, [(0, np.zeros((2, 9), np.int8))])
