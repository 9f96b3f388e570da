"""The choice of a device, and the CPU as one."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from eravane.backend import choice, choose, cpu, why_no_gpu
from eravane.backend.cpu import CpuBackend
from eravane.core.errors import ConfigError, DeviceError
from eravane.data.ingest import ingest
from eravane.data.store import placement
from tests.support import device_double as double
from tests.support.made_store import FEATURES, Dataset


def test_cpu_is_taken_when_asked_for() -> None:
    notes: list[str] = []
    backend = choose("cpu", notes.append)
    assert (backend.name, backend.xgboost_device, backend.torch_device) == ("cpu", "cpu", "cpu")
    assert notes == ["device cpu, as configured"]


def test_auto_says_why_it_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "why_no_gpu", lambda: "the driver is too old")
    notes: list[str] = []
    assert choose("auto", notes.append).name == "cpu"
    assert notes == ["device cpu, because no GPU works here: the driver is too old"]


def test_cuda_without_a_gpu_is_an_error_and_never_a_quiet_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "why_no_gpu", lambda: "cupy is not installed")
    notes: list[str] = []
    with pytest.raises(DeviceError, match=r"no GPU works here: cupy is not installed; .*doctor.*cu12"):
        choose("cuda", notes.append)
    assert not notes


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'tpu' is unknown; choose auto, cpu or cuda"):
        choose("tpu", print)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def pool_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.POOL_VARIABLE, "async")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_gpu_that_works_is_taken_and_named(device: str) -> None:
    notes: list[str] = []
    with double.installed():
        backend = choose(device, notes.append, "none")  # type: ignore[arg-type]
        assert (backend.name, backend.xgboost_device, backend.torch_device) == ("cuda", "cuda", "cuda")
    assert notes == ["device cuda: Double 1000, 8.6 GB, memory pools of the libraries"]


def test_the_pool_that_was_chosen_stays_in_this_process_and_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choice.POOL_VARIABLE, raising=False)
    asked: list[str] = []
    with double.installed():
        module = importlib.import_module("eravane.backend.cuda")
        monkeypatch.setattr(module, "use_pool", lambda pool: (asked.append(pool) or "a pool", int))
        choose("cuda", print)
        choose("cuda", print, "pool")
        choose("cuda", print)
        assert asked == ["async", "pool", "pool"]
        show = [sys.executable, "-c", f"import os; print(os.environ[{choice.POOL_VARIABLE!r}])"]
        assert subprocess.run(show, capture_output=True, text=True, check=True).stdout.strip() == "pool"
        with pytest.raises(ConfigError, match="pool 'rmm' is unknown; choose async, pool, none"):
            choose("cuda", print, "rmm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pool", "resource"), [("async", "CudaAsyncMemoryResource"), ("pool", "StatisticsResourceAdaptor"), ("none", None)]
)
def test_each_pool_is_put_in_force_once(monkeypatch: pytest.MonkeyPatch, pool: str, resource: str | None) -> None:
    taken: list[str] = []
    asked: list[tuple[str, dict[str, object]]] = []

    class Resource:
        def __init__(self, *given: object, **named: object) -> None:
            asked.append((type(self).__name__, named))

        def pool_size(self) -> int:
            return 5 << 30

        allocation_counts = SimpleNamespace(current_bytes=2 << 30)

    rmm, allocators = ModuleType("rmm"), ModuleType("rmm.allocators.cupy")
    kinds = ("CudaMemoryResource", "CudaAsyncMemoryResource", "PoolMemoryResource", "StatisticsResourceAdaptor")
    vars(rmm)["mr"] = SimpleNamespace(
        **{kind: type(kind, (Resource,), {}) for kind in kinds},
        set_current_device_resource=lambda made: taken.append(type(made).__name__),
    )
    vars(allocators)["rmm_cupy_allocator"] = object()
    with double.installed():
        for name, module in (("rmm", rmm), ("rmm.allocators", ModuleType("x")), ("rmm.allocators.cupy", allocators)):
            monkeypatch.setitem(sys.modules, name, module)
        for _ in range(2):
            backend = choose("cuda", print, pool)  # type: ignore[arg-type]
        # What a pool holds beyond what is in use can be had; the driver's own pool gives it back by itself.
        held = {"pool": 3 << 30}.get(pool, 0)
        assert backend.room() == double.MEMORY + held - (512 << 20)
    assert taken == ([resource] if resource else [])
    # Without sizes the pools would take half a card at once, or keep what they once had for good.
    assert dict(asked).get("CudaAsyncMemoryResource", {"release_threshold": 0}) == {"release_threshold": 0}
    assert 0 < dict(asked).get("PoolMemoryResource", {"initial_pool_size": 1})["initial_pool_size"] <= 1 << 30


def test_a_gpu_that_fails_its_probe_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> int:
        raise RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient\nmore")

    with double.installed():
        import cupy

        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", broken)
        assert why_no_gpu() == "RuntimeError: cudaErrorInsufficientDriver: CUDA driver version is insufficient"
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
        assert why_no_gpu() == "the driver reports no CUDA device"


@pytest.mark.gpu
def test_the_gpu_here_is_taken() -> None:
    notes: list[str] = []
    assert choose("cuda", notes.append).name == "cuda"


def test_importing_the_backend_imports_no_gpu_library() -> None:
    script = (
        "import sys, eravane, eravane.backend, eravane.data.store.store, eravane.data.ingest, eravane.data.prepare\n"
        "print([n for n in ('cupy', 'cudf', 'rmm', 'pylibcudf', 'torch', 'xgboost') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_windows_are_copied_from_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CpuBackend()
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 100)
    store = ingest(Dataset.make().write(tmp_path / "data"), tmp_path / "many")
    window = store.window(2, 13, [FEATURES[5], FEATURES[2], FEATURES[3]])
    matrix = backend.hold((3, window.index.rows), "int8")
    window.send(backend, matrix)
    np.testing.assert_array_equal(matrix, window.frame().values)


def test_a_table_shares_the_matrix(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    table = CpuBackend().table(values, ["a", "b", "c"])
    assert table.schema == pa.schema([pa.field(name, pa.float32(), nullable=False) for name in "abc"])
    values[1, 2] = 99
    assert table["b"][2].as_py() == 99


def test_a_matrix_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "available_memory", lambda: 10**9)
    with pytest.raises(DeviceError, match=r"100 columns x 20000000 rows needs 2\.0 GB, 1\.0 GB are free"):
        CpuBackend().load([], (100, 20_000_000), "int8")
