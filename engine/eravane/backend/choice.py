"""Choice of the device: made once and logged, never silently."""

from __future__ import annotations

import importlib
import logging
import os
from functools import cache
from typing import Literal, cast, get_args

from eravane.backend.cpu import CpuBackend
from eravane.backend.protocol import Backend, Log, Pool
from eravane.backend.visible import VARIABLE, visible
from eravane.core.errors import ConfigError, DeviceError

logger = logging.getLogger("eravane")

Device = Literal["auto", "cpu", "cuda"]
# Which pool this process took; the workers it starts inherit it.
POOL_VARIABLE = "ERAVANE_POOL"
ADVICE = (
    "`eravane doctor` lists what is missing; a GPU needs a driver, and eravane installed with the extra cu12 or cu13"
)


def choose(device: Device, log: Log, pool: Pool | None = None) -> Backend:
    """Pick the device of a run.

    Args:
        device: "cpu"; "cuda" for a GPU and nothing else; "auto" takes a working GPU, else the CPU.
        log: called with the device and the reason for it.
        pool: device memory: the driver's asynchronous pool, a pool of RMM's own, or none (None: as chosen before in
            this process or by the one that started it, else "async").

    Raises:
        DeviceError: "cuda" was asked for and no GPU works.
        ConfigError: there is no such device or pool.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device {device!r} is unknown; choose auto, cpu or cuda")
    if device == "cpu":
        log("device cpu, as configured")
        return CpuBackend()
    reason = why_no_gpu()
    if reason is None:
        return _cuda(pool, log)
    if device == "cuda":
        raise DeviceError(f"no GPU works here: {reason}; {ADVICE}")
    log(f"device cpu, because no GPU works here: {reason}")
    return CpuBackend()


@cache
def backend_of(device: str) -> Backend:
    """The backend of this process for a device, "cpu" or "cuda"; made at the first call.

    Raises:
        DeviceError: no GPU works.
    """
    return choose(cast(Device, device), logger.debug)


def reclaim(device: str) -> None:
    """Release unused memory of a device, for libraries with pools of their own."""
    backend_of(device).reclaim()


def why_no_gpu() -> str | None:
    """Why no GPU can be used, or None where one can: tested by compiling and running a kernel."""
    if (listed := os.environ.get(VARIABLE)) is not None and listed.split(",")[0].strip() in ("", "-1"):
        return visible(listed, ()).problem
    try:
        module = importlib.import_module("eravane.backend.cuda")
    except ImportError as error:
        return f"{error.name or error} is not installed" if error.name else str(error)
    reason = cast("str | None", module.probe())
    hidden = _why_hidden() if reason is not None else ""
    return f"{reason}; {hidden}" if hidden else reason


def _why_hidden() -> str:
    """The part of CUDA_VISIBLE_DEVICES in it, as far as the driver reports."""
    if VARIABLE not in os.environ:
        return ""
    try:
        importlib.import_module("eravane.backend.cuda_nvml").Gpus()
    except (ImportError, DeviceError) as error:
        return str(error)
    return ""


def _cuda(pool: Pool | None, log: Log) -> Backend:
    wanted = pool or os.environ.get(POOL_VARIABLE, "async")
    if wanted not in get_args(Pool):
        raise ConfigError(f"device memory pool {wanted!r} is unknown; choose {', '.join(get_args(Pool))}")
    os.environ[POOL_VARIABLE] = wanted
    module = importlib.import_module("eravane.backend.cuda")
    return cast(Backend, module.CudaBackend(wanted, log))
