"""Checks of this machine, each with advice on how to fix what it found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from eravane.calendar.horizon import Horizon
from eravane.core.errors import ConfigError, DataError
from eravane.core.units import format_size
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.store import EraStore
from eravane.data.store.targets import TargetFacts, horizon_of, require_scale
from eravane.planning.machine import Machine, survey
from eravane.planning.shape import read_targets
from eravane.tournament.credentials import HOW_TO

Status = Literal["ok", "warn", "fail"]

PYTHONS = ((3, 11), (3, 14))
XGBOOSTS = ("xgboost", "xgboost-cpu", "xgboost-cu12", "xgboost-cu13")
GPU_LIBRARIES = re.compile(r"^(?:cupy-cuda(\d+)x|(?:cudf|pylibcudf|rmm|dask-cudf|libcudf|librmm|xgboost)-cu(\d+))$")
# Oldest driver for each CUDA major version (RAPIDS 26.10 platform support).
DRIVERS = {12: 535, 13: 580}
# torch up to 2.12 pins an nvJitLink that cuDF from 26.8 on rejects (pytorch issue 179758).
TORCH_FOR_CUDF = (Version("2.13"), Version("26.8"))
GIGABYTE = 1e9
LOW_MEMORY, LOW_DISK, NO_DISK = 8 * GIGABYTE, 40 * GIGABYTE, 2 * GIGABYTE
# What NCCL takes for two GPUs, and files that a store of many segments and eight workers hold open.
LOW_SHARED_MEMORY, FEW_FILES = 0.5 * GIGABYTE, 1024


@dataclass(frozen=True)
class Check:
    """One finding: its name, ok, warn or fail, what was found, and advice ("" where none is needed)."""

    name: str
    status: Status
    found: str
    advice: str = ""


def doctor(scheduler: str = "", data: Path | None = None) -> list[Check]:
    """Examine this machine, and the targets of a dataset or a store; see `eravane.api.doctor`."""
    return examine(survey(scheduler)) + ([] if data is None else examine_targets(data))


def examine(machine: Machine) -> list[Check]:
    """Check the facts of a machine."""
    return [
        _python(machine),
        _libraries(machine),
        _xgboost(machine),
        *_clashes(machine),
        *_broken(machine),
        _gpu(machine),
        *_gpu_ready(machine),
        _memory(machine),
        *_disk(machine),
        *_surroundings(machine),
        _credentials(machine),
        _dask(machine),
    ]


def as_text(checks: Sequence[Check]) -> str:
    """The checks as plain lines, each problem followed by its advice."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<5} {check.name:<{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':<5} {'':<{width}}  -> {check.advice}")
    worst = [sum(check.status == status for check in checks) for status in ("fail", "warn")]
    return "\n".join([*lines, "", f"{worst[0]} to fix, {worst[1]} to note, {len(checks)} checks"])


def _python(machine: Machine) -> Check:
    found = f"{'.'.join(map(str, machine.python))} on {machine.system}, {machine.cores} cores"
    least, most = (".".join(map(str, bound)) for bound in PYTHONS)
    if not PYTHONS[0] <= machine.python[:2] <= PYTHONS[1]:
        return Check("python", "fail", found, f"use Python {least} to {most}")
    if not machine.system.startswith("Linux"):
        return Check("python", "warn", found, "eravane is tested on Linux only")
    return Check("python", "ok", found)


def _libraries(machine: Machine) -> Check:
    wrong: list[str] = []
    wanted = [item for item in map(Requirement, machine.required) if item.marker is None or item.marker.evaluate()]
    for requirement in wanted:
        version = machine.libraries.get(canonicalize_name(requirement.name))
        if version is None:
            wrong.append(f"{requirement.name} is not installed")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} is not {requirement.specifier}")
    if wrong:
        return Check(
            "libraries", "fail", "; ".join(wrong), "install eravane again with one of its extras cpu, cu12, cu13"
        )
    return Check("libraries", "ok", f"all {len(wanted)} that eravane asks for")


def _xgboost(machine: Machine) -> Check:
    libraries = dict(machine.libraries)
    version = libraries.get("xgboost")
    # xgboost is built for CUDA 12 up to 3.3 and for CUDA 13 from 3.4 on; xgboost-cu12 or -cu13 then only asks for it.
    if version and libraries.get("xgboost-cu12" if Version(version) < Version("3.4") else "xgboost-cu13") == version:
        del libraries["xgboost"]
    found = [f"{name} {libraries[name]}" for name in XGBOOSTS if name in libraries]
    if not found:
        return Check(
            "xgboost", "fail", "none", "pip install '.[cpu]' in the repository, or cu12 or cu13 on a GPU machine"
        )
    if len(found) > 1:
        names = " ".join(name for name in XGBOOSTS if name in machine.libraries)
        advice = f"they overwrite each other: pip uninstall -y {names}, then install one extra of eravane again"
        return Check("xgboost", "fail", ", ".join(found), advice)
    return Check("xgboost", "ok", found[0])


def _clashes(machine: Machine) -> Iterator[Check]:
    libraries = machine.libraries
    if "pynvml" in libraries:
        advice = (
            "pip uninstall -y pynvml, then pip install --force-reinstall nvidia-ml-py, which has the same import name"
        )
        yield Check("pynvml", "warn", f"the deprecated distribution pynvml {libraries['pynvml']}", advice)
    majors = _cuda_majors(machine)
    if len(set(majors.values())) > 1:
        listed = ", ".join(f"{name} for CUDA {major}" for name, major in sorted(majors.items()))
        yield Check(
            "cuda versions", "fail", listed, "keep one CUDA version: a fresh environment with '.[cu12]' or '.[cu13]'"
        )
    if {"nvidia-nccl-cu12", "nvidia-nccl-cu13"} <= set(libraries):
        advice = (
            "they overwrite each other's library: remove the one that torch does not ask for, then reinstall the other"
        )
        yield Check("nccl", "fail", "nvidia-nccl-cu12 and nvidia-nccl-cu13", advice)
    cudf = next((version for name, version in libraries.items() if name.startswith(("cudf-cu", "pylibcudf-cu"))), None)
    torch, (torch_floor, cudf_floor) = libraries.get("torch"), TORCH_FOR_CUDF
    if cudf and torch and Version(cudf) >= cudf_floor and Version(torch) < torch_floor:
        found = f"torch {torch} and cudf {cudf} ask for different nvJitLink versions"
        yield Check("torch and cudf", "fail", found, f"torch {torch_floor} or newer, or cudf below {cudf_floor}")


def _cuda_majors(machine: Machine) -> dict[str, int]:
    majors = {
        name: int(match.group(1) or match.group(2))
        for name in machine.libraries
        if (match := GPU_LIBRARIES.match(name)) is not None
    }
    return majors | ({"torch": machine.torch_cuda} if machine.torch_cuda else {})


def _broken(machine: Machine) -> Iterator[Check]:
    for name, why in machine.broken.items():
        yield Check(name, "fail", f"cannot be imported: {why}", f"pip install --force-reinstall {name}")


def _gpu(machine: Machine) -> Check:
    if not machine.gpus:
        return Check("gpu", "ok", "none that the NVIDIA driver reports; everything runs on the CPU")
    listed = "; ".join(f"{gpu.name}, {format_size(gpu.free)} of {format_size(gpu.total)} free" for gpu in machine.gpus)
    busy = [gpu for gpu in machine.gpus if gpu.free < gpu.total / 2]
    found = f"{listed}; driver {machine.gpus[0].driver}"
    if busy:
        return Check(
            "gpu", "warn", found, "another process holds more than half of a GPU's memory; nvidia-smi names it"
        )
    return Check("gpu", "ok", found)


def _gpu_ready(machine: Machine) -> Iterator[Check]:
    if not machine.gpus:
        return
    driver = int(machine.gpus[0].driver.split(".")[0])
    usable = max((major for major, least in DRIVERS.items() if driver >= least), default=0)
    if not usable:
        yield Check("driver", "fail", machine.gpus[0].driver, f"update the NVIDIA driver to {DRIVERS[12]} or newer")
        return
    majors = _cuda_majors(machine)
    built = [*majors, *(["xgboost-cu"] if "xgboost" in machine.libraries else [])]
    needed = {"cupy": "cupy-cuda", "xgboost": "xgboost-cu", "torch": "torch"}
    lacking = [name for name, prefix in needed.items() if not any(known.startswith(prefix) for known in built)]
    if lacking:
        found = f"the GPU stays idle: no GPU build of {', '.join(lacking)}"
        yield Check("gpu libraries", "warn", found, f"pip install '.[cu{usable}]' in a fresh environment")
    elif max(majors.values()) > usable:
        found = f"driver {machine.gpus[0].driver} is too old for CUDA {max(majors.values())}"
        yield Check(
            "driver", "fail", found, f"update it to {DRIVERS[max(majors.values())]}, or install '.[cu{usable}]'"
        )
    else:
        yield Check("gpu libraries", "ok", f"CUDA {max(majors.values())}, driver {machine.gpus[0].driver}")


def _memory(machine: Machine) -> Check:
    free, total = machine.memory
    bound = "" if machine.limit == "the machine" else f", set by {machine.limit}"
    found = f"{format_size(free)} of {format_size(total)} free{bound}"
    if free < LOW_MEMORY:
        return Check(
            "memory", "warn", found, "close other programs, or set compute.memory and take fewer eras or features"
        )
    return Check("memory", "ok", found)


def _disk(machine: Machine) -> Iterator[Check]:
    for folder, free in machine.disk.items():
        found = f"{format_size(free)} free at {folder}"
        if free < LOW_DISK:
            status: Status = "fail" if free < NO_DISK else "warn"
            yield Check("disk", status, found, "the full v5.3 dataset and its store take about 36 GB; free some space")
        else:
            yield Check("disk", "ok", found)


def _surroundings(machine: Machine) -> Iterator[Check]:
    """Other facts of the machine that end or slow a run; none where all is well."""
    for purpose, why in machine.unwritable.items():
        variable = "ERAVANE_CACHE" if purpose == "the cache" else "TMPDIR"
        yield Check("folders", "fail", f"{purpose} cannot be written: {why}", f"set {variable} to a folder of yours")
    if machine.locks:
        advice = "start no second program on the same store or run, or set ERAVANE_CACHE to a local disk"
        yield Check("locks", "warn", f"none on the file system of the cache: {machine.locks}", advice)
    if machine.shared_memory is not None and machine.shared_memory < LOW_SHARED_MEMORY and len(machine.gpus) > 1:
        found = f"/dev/shm has {format_size(machine.shared_memory)}, through which several GPUs talk (NCCL)"
        yield Check("shared memory", "warn", found, "start the container with --shm-size=1g or more")
    if machine.largest_file is not None:
        found = f"ulimit -f: no file above {format_size(machine.largest_file)}"
        yield Check("file size", "fail", found, "the store of v5.3 has files of several GB; `ulimit -f unlimited`")
    if machine.open_files is not None and machine.open_files < FEW_FILES:
        found = f"ulimit -n: {machine.open_files} open files"
        yield Check("open files", "warn", found, f"a store and a Dask cluster need more; `ulimit -n {FEW_FILES}`")
    if machine.encoding.lower().replace("-", "") != "utf8":
        found = f"file names are {machine.encoding} here, which parquet and XGBoost take for UTF-8"
        yield Check("locale", "warn", found, "set LC_ALL=C.UTF-8, or keep to ASCII in names of files and folders")
    if machine.hidden and machine.gpus:
        yield Check("visible gpus", "warn", machine.hidden, "correct CUDA_VISIBLE_DEVICES, or unset it for all GPUs")
    if machine.network:
        yield Check("network", "fail", machine.network, "correct or unset the variable")


def _credentials(machine: Machine) -> Check:
    if machine.credentials == "present":
        return Check("credentials", "ok", "present (not shown)")
    if machine.credentials == "absent":
        return Check("credentials", "warn", "none; everything except sending works", HOW_TO)
    return Check("credentials", "fail", machine.credentials, HOW_TO)


def _dask(machine: Machine) -> Check:
    if not machine.scheduler:
        return Check("dask", "ok", "no scheduler given; work stays on this machine")
    if machine.unreachable:
        advice = "start it with `dask scheduler` in this environment, or check the address and the firewall"
        return Check("dask", "fail", f"{machine.scheduler}: {machine.unreachable}", advice)
    return Check("dask", "ok", f"{machine.scheduler} answers")


def examine_targets(data: Path) -> list[Check]:
    """Check the targets of a folder of files or of a store.

    Raises:
        DataError: the files are missing or break the dataset's contract.
        StoreError: the store is damaged.
    """
    facts = EraStore.open(data).facts if (data / MANIFEST).is_file() else read_targets(data).facts
    return list(_target_checks(facts))


def _target_checks(facts: Mapping[str, TargetFacts]) -> Iterator[Check]:
    quiet: dict[Horizon, list[str]] = {}
    for name, fact in facts.items():
        try:
            found = horizon_of(name, facts)
            require_scale(name, fact)
        except (ConfigError, DataError) as error:
            text, _, advice = str(error).rpartition("; ")
            yield Check("target", "fail" if isinstance(error, DataError) else "warn", text or str(error), advice)
            continue
        for note in found.notes:
            yield Check("target", "warn", note, "compare the file with a fresh download")
        if found.how == "name" and not found.notes:
            quiet.setdefault(found.span, []).append(name)
        elif found.how != "name":
            yield Check("target", "ok", found.sentence(found.span.score_lag, found.span.tree_lag))
    for span, names in sorted(quiet.items(), key=lambda entry: entry[0].eras):
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Check("target", "ok", f"{listed}, {span}: lags {span.score_lag} and {span.tree_lag}, purge {span.purge}")
