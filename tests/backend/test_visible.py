"""Which GPUs CUDA_VISIBLE_DEVICES leaves, and the message where it leaves none."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eravane.backend import choose, why_no_gpu
from eravane.backend.visible import VARIABLE, visible
from eravane.core.errors import DeviceError
from eravane.zoo import spanning
from tests.support import device_double as double

UUIDS = ("GPU-1111aaaa", "GPU-1111bbbb", "GPU-2222cccc")


@pytest.mark.parametrize(
    ("listed", "numbers"),
    [
        (None, (0, 1, 2)),
        ("2", (2,)),
        (" 1, 0 ", (1, 0)),
        ("GPU-2222", (2,)),
        ("GPU-1111bbbb,0", (1, 0)),
        ("MIG-GPU-1111aaaa/1/0", ("MIG-GPU-1111aaaa/1/0",)),
        ("0,5,1", (0,)),  # CUDA ends the list where it does not know an entry
        ("0,-1,1", (0,)),
    ],
)
def test_what_is_left(listed: str | None, numbers: tuple[int | str, ...]) -> None:
    assert visible(listed, UUIDS).numbers == numbers


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("", "is set and empty"),
        ("  ", "is set and empty"),
        (",", "begins with an empty entry, which hides every GPU"),
        (" ,0", "begins with an empty entry, which hides every GPU"),
        ("-1", "-1 hides every GPU"),
        ("3", "no GPU of this machine is '3', there are 0 to 2: GPU-1111aaaa"),
        ("GPU-1111", "no GPU of this machine is 'GPU-1111'"),
        ("GPU-9", "no GPU of this machine is 'GPU-9'"),
        ("NoDevFiles", "no GPU of this machine is 'NoDevFiles'"),
        ("0,0", "names a GPU twice"),
        ("0,GPU-1111aaaa", "names a GPU twice"),
    ],
)
def test_why_none_is_left(listed: str, why: str) -> None:
    found = visible(listed, UUIDS)
    assert found.numbers == ()
    assert why in found.problem


@pytest.mark.parametrize("listed", ["", "-1", ",0", " -1 ,0"])
def test_hidden_gpus_are_reported_before_any_library_is_asked(listed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, listed)
    with double.installed():
        notes: list[str] = []
        assert choose("auto", notes.append).name == "cpu"
        assert VARIABLE in notes[0]
        with pytest.raises(DeviceError, match=f"{VARIABLE}.*hides every GPU"):
            choose("cuda", print)


def test_a_wrong_number_is_named_beside_what_cuda_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gpus:
        def __init__(self) -> None:
            raise DeviceError(visible("7", UUIDS).problem)

    with double.installed():
        import cupy

        monkeypatch.setenv(VARIABLE, "7")
        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 0)
        monkeypatch.setattr(importlib.import_module("eravane.backend.cuda_nvml"), "Gpus", Gpus)
        reason = why_no_gpu()
    assert reason is not None
    assert reason.startswith("the driver reports no CUDA device; ")
    assert "no GPU of this machine is '7', there are 0 to 2" in reason


def test_of_several_gpus_the_first_is_used_and_the_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with double.installed():
        import cupy

        monkeypatch.setattr(cupy.cuda.runtime, "getDeviceCount", lambda: 3)
        notes: list[str] = []
        choose("cuda", notes.append, "none")
    assert notes[0].endswith('; 2 more visible, which compute.scheduler = "local" uses, too')


def test_a_cluster_of_gpus_of_different_size_is_planned_by_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def run(self, ask: object) -> dict[str, int]:
            return {"tcp://one": 80 * 10**9, "tcp://other": 40 * 10**9}

    @contextmanager
    def connect(_: str) -> Iterator[Client]:
        yield Client()

    monkeypatch.setattr(spanning, "connect", connect)
    monkeypatch.setattr(spanning, "workers_of", lambda _: {"one": {"memory_limit": 1}, "other": {"memory_limit": 1}})
    assert spanning.worker_room("tcp://scheduler", "cuda") == int(spanning.FILL * 40 * 10**9)
