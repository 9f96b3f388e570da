"""A double of the NVIDIA management library, and the module that reads it."""

from __future__ import annotations

import time
from types import ModuleType, SimpleNamespace
from typing import Any

NVML = "eravane.backend.cuda_nvml"


class Driver(ModuleType):
    """Two boards: the first draws 300 W and is busy 80 % of the time, the second 100 W and 40 %."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2

    class NVMLError(Exception):
        """As the binding's own."""

    def __init__(self, boards: int = 2) -> None:
        super().__init__("pynvml")
        self.boards, self.calls, self.reasons, self.silent = boards, 0, 0x4, set[str]()
        self.started = time.perf_counter()

    def nvmlInit(self) -> None:
        if not self.boards:
            raise self.NVMLError("NVML Shared Library Not Found")

    def _answer(self, name: str, value: Any) -> Any:
        self.calls += 1
        if name in self.silent:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlDeviceGetCount(self) -> int:
        return self.boards

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index >= self.boards:
            raise self.NVMLError("Invalid Argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        if uuid not in ("MIG-known",):
            raise self.NVMLError("Not Found")
        return 1

    def nvmlDeviceGetUUID(self, board: int) -> str:
        return ("GPU-a0", "GPU-b0")[board]

    def nvmlDeviceGetUtilizationRates(self, board: int) -> Any:
        return self._answer("utilisation", SimpleNamespace(gpu=(80, 40)[board], memory=5))

    def nvmlDeviceGetMemoryInfo(self, board: int) -> Any:
        return self._answer("memory", SimpleNamespace(used=(5 << 30, 1 << 30)[board], total=80 << 30))

    def nvmlDeviceGetPowerUsage(self, board: int) -> int:
        return self._answer("power", (300_000, 100_000)[board])

    def nvmlDeviceGetClockInfo(self, board: int, kind: int) -> int:
        assert kind == self.NVML_CLOCK_SM
        return self._answer("clock", (1700, 1900)[board])

    def nvmlDeviceGetCurrentClocksEventReasons(self, board: int) -> int:
        return self._answer("reasons", self.reasons | 0x1 if board == 0 else 0x1)

    def nvmlDeviceGetTotalEnergyConsumption(self, board: int) -> int:
        watts = (300, 100)[board]
        return self._answer("energy", int(1000 * watts * (time.perf_counter() - self.started)) + 10**9)
