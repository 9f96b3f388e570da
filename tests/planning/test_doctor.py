"""The doctor: each defect is found and comes with what to do, real facts are right, and no secret is shown."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import psutil
import pytest

from eravane.planning import machine as facts
from eravane.planning.doctor import as_text, doctor, examine
from eravane.planning.machine import Gpu, Machine

GB = 1e9
SOUND = Machine(
    python=(3, 12, 4),
    system="Linux x86_64",
    libraries={"numpy": "2.4.6", "torch": "2.13.0", "xgboost-cpu": "3.2.0", "nvidia-ml-py": "13.615.71"},
    required=("numpy>=2.0", "torch>=2.11", 'pywin32; sys_platform == "win32"'),
    cores=8,
    memory=(50 * GB, 64 * GB),
    disk={"/": 500 * GB},
    credentials="present",
)
H200 = Gpu("NVIDIA H200", "580.65.06", 150 * GB, 149 * GB)
CUDA_13 = {
    "cupy-cuda13x": "14.2.0",
    "cudf-cu13": "26.10.0",
    "rmm-cu13": "26.10.0",
    "xgboost-cu13": "3.2.0",
    "torch": "2.13.0",
    "numpy": "2.4.6",
}
ON_GPU = dataclasses.replace(SOUND, libraries=CUDA_13, torch_cuda=13, gpus=(H200,))


def with_libraries(machine: Machine, **changes: str | None) -> Machine:
    """Add distributions (underscores for dashes), or take away those set to None."""
    changed = dict(machine.libraries) | {name.replace("_", "-"): version for name, version in changes.items()}
    return dataclasses.replace(machine, libraries={name: v for name, v in changed.items() if v is not None})


def troubles(machine: Machine) -> dict[str, str]:
    checks = examine(machine)
    assert all(check.advice for check in checks if check.status != "ok"), "a problem without what to do"
    return {check.name: check.status for check in checks if check.status != "ok"}


@pytest.mark.parametrize("machine", [SOUND, ON_GPU], ids=["laptop", "node"])
def test_sound_machines_have_no_troubles(machine: Machine) -> None:
    assert troubles(machine) == {}


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (dataclasses.replace(SOUND, python=(3, 10, 1)), {"python": "fail"}),
        (dataclasses.replace(SOUND, python=(3, 15, 0)), {"python": "fail"}),
        (dataclasses.replace(SOUND, system="Darwin arm64"), {"python": "warn"}),
        (with_libraries(SOUND, numpy="1.26.4"), {"libraries": "fail"}),
        (with_libraries(SOUND, numpy=None), {"libraries": "fail"}),
        (with_libraries(SOUND, xgboost_cpu=None), {"xgboost": "fail"}),
        (with_libraries(SOUND, xgboost="3.2.0"), {"xgboost": "fail"}),
        (with_libraries(SOUND, xgboost_cpu=None, xgboost="3.2.0", xgboost_cu12="3.2.0"), {}),
        (with_libraries(SOUND, xgboost_cpu=None, xgboost="3.4.1", xgboost_cu12="3.2.0"), {"xgboost": "fail"}),
        (with_libraries(SOUND, xgboost_cpu=None, xgboost="3.4.1", xgboost_cu12="3.4.1"), {"xgboost": "fail"}),
        (with_libraries(SOUND, xgboost_cpu=None, xgboost="3.4.1", xgboost_cu13="3.4.1"), {}),
        (with_libraries(SOUND, xgboost_cpu=None, xgboost="3.3.0", xgboost_cu13="3.3.0"), {"xgboost": "fail"}),
        (with_libraries(SOUND, pynvml="11.5.0"), {"pynvml": "warn"}),
        (with_libraries(SOUND, nvidia_nccl_cu12="2.28", nvidia_nccl_cu13="2.29"), {"nccl": "fail"}),
        (with_libraries(ON_GPU, cupy_cuda13x=None, cupy_cuda12x="14.2.0"), {"cuda versions": "fail"}),
        (dataclasses.replace(ON_GPU, torch_cuda=12), {"cuda versions": "fail"}),
        (with_libraries(ON_GPU, torch="2.12.1"), {"torch and cudf": "fail"}),
        (dataclasses.replace(SOUND, gpus=(H200,)), {"gpu libraries": "warn"}),
        (dataclasses.replace(ON_GPU, torch_cuda=0), {"gpu libraries": "warn"}),
        (dataclasses.replace(ON_GPU, gpus=(dataclasses.replace(H200, driver="535.104"),)), {"driver": "fail"}),
        (dataclasses.replace(ON_GPU, gpus=(dataclasses.replace(H200, driver="470.82"),)), {"driver": "fail"}),
        (dataclasses.replace(ON_GPU, gpus=(dataclasses.replace(H200, free=10 * GB),)), {"gpu": "warn"}),
        (dataclasses.replace(SOUND, broken={"torch": "libnccl.so.2: undefined symbol"}), {"torch": "fail"}),
        (dataclasses.replace(SOUND, memory=(4 * GB, 8 * GB)), {"memory": "warn"}),
        (dataclasses.replace(SOUND, disk={"/": 20 * GB}), {"disk": "warn"}),
        (dataclasses.replace(SOUND, disk={"/": 1 * GB}), {"disk": "fail"}),
        (dataclasses.replace(SOUND, unwritable={"the cache": "/c: Read-only file system"}), {"folders": "fail"}),
        (dataclasses.replace(SOUND, locks="/nfs: No locks available"), {"locks": "warn"}),
        (dataclasses.replace(ON_GPU, gpus=(H200, H200), shared_memory=64 * 2**20), {"shared memory": "warn"}),
        (dataclasses.replace(SOUND, largest_file=10**6), {"file size": "fail"}),
        (dataclasses.replace(SOUND, open_files=256), {"open files": "warn"}),
        (dataclasses.replace(SOUND, encoding="iso8859-1"), {"locale": "warn"}),
        (
            dataclasses.replace(ON_GPU, hidden="CUDA_VISIBLE_DEVICES='7': no GPU of this machine is '7'"),
            {"visible gpus": "warn"},
        ),
        (dataclasses.replace(SOUND, hidden="CUDA_VISIBLE_DEVICES is set and empty"), {}),
        (dataclasses.replace(SOUND, network="HTTPS_PROXY is no address of a proxy"), {"network": "fail"}),
        (dataclasses.replace(SOUND, credentials="absent"), {"credentials": "warn"}),
        (dataclasses.replace(SOUND, credentials=".env has mode 644"), {"credentials": "fail"}),
        (dataclasses.replace(SOUND, scheduler="tcp://h:1", unreachable="refused"), {"dask": "fail"}),
    ],
)
def test_each_defect_is_found_alone(machine: Machine, expected: dict[str, str]) -> None:
    assert troubles(machine) == expected


def test_driver_advice_names_a_set_that_works() -> None:
    idle = dataclasses.replace(SOUND, gpus=(dataclasses.replace(H200, driver="550.54"),))
    advice = next(check.advice for check in examine(idle) if check.name == "gpu libraries")
    assert "'.[cu12]'" in advice


def test_text_tells_what_to_do() -> None:
    text = as_text(examine(with_libraries(SOUND, xgboost="3.2.0")))
    assert "pip uninstall -y xgboost xgboost-cpu" in text
    assert text.endswith("1 to fix, 0 to note, 8 checks")


def test_survey_reads_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "failing_imports", lambda libraries: iter(()))
    monkeypatch.setenv("ERAVANE_CACHE", str(tmp_path / "not" / "there"))
    found = facts.survey()
    assert found.libraries["numpy"] == np.__version__
    assert any(line.startswith("numpy") for line in found.required)
    assert not any("extra" in line for line in found.required)
    assert found.cores == len(os.sched_getaffinity(0))
    assert found.memory[0] <= found.memory[1] <= psutil.virtual_memory().total
    free = shutil.disk_usage(tmp_path).free
    assert any(abs(known - free) < 1e9 for known in found.disk.values())


def test_failing_imports_are_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('libcuda.so.1: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = dict(facts.failing_imports({"cupy-cuda13x": "14"}))
    assert found == {"cupy": "ImportError: libcuda.so.1: cannot open"}


def test_gpu_lines_are_parsed() -> None:
    gpu = facts.parse_gpu("NVIDIA H200, 580.65.06, 143771, 143204, GPU-1111aaaa")
    assert gpu == Gpu("NVIDIA H200", "580.65.06", 143771 * 2**20, 143204 * 2**20, "GPU-1111aaaa")
    assert facts.parse_gpu("NVIDIA GB10, 580.65.06, [N/A], [N/A], GPU-1") is None


def test_what_surrounds_a_run_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache below a file, a wrong proxy, and an ordinal of a GPU that is not there."""
    monkeypatch.setattr(facts, "failing_imports", lambda libraries: iter(()))
    (tmp_path / "file").touch()
    monkeypatch.setenv("ERAVANE_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://host:port")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr(facts, "driver_gpus", lambda: [dataclasses.replace(H200, uuid="GPU-1111aaaa")])
    found = troubles(facts.survey())
    assert found["network"] == found["folders"] == "fail"
    assert found["visible gpus"] == "warn"


@pytest.mark.parametrize(("version", "major"), [("2.13.0+cpu", 0), ("2.13.0+cu130", 13), ("2.11.0+cu128", 12), ("", 0)])
def test_torch_build_is_read_from_its_version(version: str, major: int) -> None:
    assert facts.cuda_of_torch({"torch": version} if version else {}) == major


def test_scheduler_is_really_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert facts.why_unreachable(f"tcp://127.0.0.1:{port}") == ""
        assert facts.why_unreachable(f"127.0.0.1:{port}") == ""
    assert "refused" in facts.why_unreachable(f"tcp://127.0.0.1:{port}")
    assert "such as tcp://" in facts.why_unreachable("tcp://nowhere")
    assert "such as tcp://" in facts.why_unreachable("tcp://host:port")


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(facts, "failing_imports", lambda libraries: iter(()))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "PLANTEDPUBLIC")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "PLANTEDSECRET")
    checks = doctor()
    shown = as_text(checks) + json.dumps([dataclasses.asdict(check) for check in checks])
    assert next(check for check in checks if check.name == "credentials").status == "ok"
    assert "PLANTED" not in shown
    monkeypatch.delenv("NUMERAI_SECRET_KEY")
    checks = doctor()
    assert next(check for check in checks if check.name == "credentials").status == "fail"
    assert "PLANTED" not in as_text(checks)
