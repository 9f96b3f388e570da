"""The driver's facts of the GPUs that this process may use, through NVML; without a CUDA context or CuPy."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import pynvml as nvml

from eravane.backend.visible import VARIABLE, visible
from eravane.core.errors import DeviceError

Value = TypeVar("Value")

# Bindings before 12.535 know it by its old name.
_reasons = (
    getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None) or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
)
# Reasons for lowered clocks; an idle GPU lowers them too, which is harmless.
THROTTLES: Mapping[int, str] = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


class Gpus:
    """The GPUs that CUDA_VISIBLE_DEVICES leaves to this process, all where it is not set.

    Args:
        most: leave out all but the first ones (None: no limit).

    Raises:
        DeviceError: the driver's library is missing, or no GPU is visible.
    """

    def __init__(self, most: int | None = None) -> None:
        try:
            nvml.nvmlInit()
            handles, problem = _visible(os.environ.get(VARIABLE))
        except nvml.NVMLError as error:
            raise DeviceError(f"NVML reports no GPU: {error}") from error
        if not handles:
            raise DeviceError(problem or "NVML reports no GPU")
        self._handles = handles[:most]

    def sample(self) -> dict[str, float]:
        """Present load of the GPUs; counters that a driver does not report (for example under MIG) are left out.

        `utilisation` (%, share of time with a kernel running) and `sm_mhz` are means over the GPUs, `memory_bytes` (of
        all processes) and `power_watts` sums, `throttle` the bits of `THROTTLES` of any of them.
        """
        found = {
            "utilisation": self._mean(lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            "memory_bytes": self._sum(lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used),
            "power_watts": self._sum(lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
            "sm_mhz": self._mean(lambda gpu: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            "throttle": self._bits(_reasons),
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def joules(self) -> float | None:
        """Energy that the boards have used since the driver was loaded; None where they do not count it."""
        millijoules = self._sum(nvml.nvmlDeviceGetTotalEnergyConsumption)
        return None if millijoules is None else millijoules / 1000

    def facts(self) -> list[dict[str, object]]:
        """Constant facts of the GPUs, one dictionary each."""
        return [{name: value for name, value in _facts(gpu).items() if value is not None} for gpu in self._handles]

    def _each(self, ask: Callable[[Any], float]) -> list[float] | None:
        found = [_asked(ask, gpu) for gpu in self._handles]
        return None if None in found else [value for value in found if value is not None]

    def _sum(self, ask: Callable[[Any], float]) -> float | None:
        found = self._each(ask)
        return None if found is None else sum(found)

    def _mean(self, ask: Callable[[Any], float]) -> float | None:
        found = self._each(ask)
        return None if found is None else sum(found) / len(found)

    def _bits(self, ask: Callable[[Any], int]) -> float | None:
        found = self._each(ask)
        bits = 0
        for value in found or ():
            bits |= int(value) & sum(THROTTLES)
        return None if found is None else float(bits)


def _visible(listed: str | None) -> tuple[list[Any], str]:
    """Handles of the GPUs and MIG instances that are visible, and why there are fewer than listed."""
    boards = [nvml.nvmlDeviceGetHandleByIndex(number) for number in range(nvml.nvmlDeviceGetCount())]
    uuids = [str(_text(_asked(nvml.nvmlDeviceGetUUID, board)) or "") for board in boards]
    found = visible(listed, uuids)
    handles: list[Any] = []
    for number in found.numbers:
        handle = boards[number] if isinstance(number, int) else _asked(nvml.nvmlDeviceGetHandleByUUID, number)
        if handle is None:
            return handles, f"no MIG instance of this machine is {number!r}"
        handles.append(handle)
    return handles, found.problem


def _asked(ask: Callable[[Any], Value], gpu: object) -> Value | None:
    try:
        return ask(gpu)
    except nvml.NVMLError:
        return None


def _facts(gpu: object) -> dict[str, object]:
    version = _asked(lambda _: nvml.nvmlSystemGetCudaDriverVersion(), gpu)
    others = _asked(lambda gpu: len(nvml.nvmlDeviceGetComputeRunningProcesses(gpu)), gpu)
    return {
        "name": _text(_asked(nvml.nvmlDeviceGetName, gpu)),
        "driver": _text(_asked(lambda _: nvml.nvmlSystemGetDriverVersion(), gpu)),
        "cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
        "memory_bytes": _asked(lambda gpu: int(nvml.nvmlDeviceGetMemoryInfo(gpu).total), gpu),
        "power_limit_watts": _asked(lambda gpu: nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1000, gpu),
        "sm_mhz_most": _asked(lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM), gpu),
        "memory_mhz_most": _asked(lambda gpu: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_MEM), gpu),
        "pcie_generation": _asked(nvml.nvmlDeviceGetMaxPcieLinkGeneration, gpu),
        "pcie_width": _asked(nvml.nvmlDeviceGetMaxPcieLinkWidth, gpu),
        "processes": others,
    }


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
