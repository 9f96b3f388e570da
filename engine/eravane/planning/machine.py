"""Facts of this machine that decide what eravane can do on it."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from eravane.backend.visible import VARIABLE, visible
from eravane.core.errors import RunError, SubmitError
from eravane.core.files import default_cache
from eravane.core.memory import MEBIBYTE, cores, tightest_limit
from eravane.tournament.credentials import find_credentials
from eravane.tournament.transport import proxies_for, trusted_certificates
from eravane.zoo.cluster import connect
from eravane.zoo.clustercheck import check_versions

CONNECT_SECONDS, QUERY_SECONDS, IMPORT_SECONDS = 3.0, 20.0, 120.0
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver reports it; memory in bytes."""

    name: str
    driver: str
    total: float
    free: float
    uuid: str = ""


@dataclass(frozen=True)
class Machine:
    """The facts that the checks judge.

    Attributes:
        python: version of the interpreter.
        system: operating system, such as "Linux x86_64".
        libraries: installed distribution -> version, names in lower case with dashes.
        required: eravane's own requirements, without extras.
        torch_cuda: major CUDA version torch was built for, 0 for a CPU build.
        broken: library -> why importing it failed.
        gpus: what the NVIDIA driver reports.
        cores: usable by this process.
        memory: free and total bytes that this process may use; `limit` is where the tightest bound on them is set.
        disk: folder -> free bytes.
        unwritable: what a folder is for -> why it cannot be written.
        locks: why the cache's file system has no locks, "" where it has.
        shared_memory: bytes of /dev/shm, None where there is none.
        largest_file, open_files: bounds of ulimit, None where there is none.
        encoding: of file names.
        hidden: why CUDA_VISIBLE_DEVICES leaves no GPU, or fewer than it lists; "" where it leaves all.
        network: what is wrong with the proxies and certificates of the environment, "" where nothing is.
        credentials: "present", "absent", or why they cannot be used; never the credentials themselves.
        scheduler: Dask address, "" for none; `unreachable` is the reason why it cannot be reached, "" if it can.
    """

    python: tuple[int, int, int]
    system: str
    libraries: Mapping[str, str]
    required: Sequence[str] = ()
    torch_cuda: int = 0
    broken: Mapping[str, str] = field(default_factory=dict)
    gpus: Sequence[Gpu] = ()
    cores: int = 1
    memory: tuple[float, float] = (0.0, 0.0)
    limit: str = "the machine"
    disk: Mapping[str, float] = field(default_factory=dict)
    unwritable: Mapping[str, str] = field(default_factory=dict)
    locks: str = ""
    shared_memory: float | None = None
    largest_file: int | None = None
    open_files: int | None = None
    encoding: str = "utf-8"
    hidden: str = ""
    network: str = ""
    credentials: str = "absent"
    scheduler: str = ""
    unreachable: str = ""


def survey(scheduler: str = "") -> Machine:
    """Read the facts of this machine; libraries are imported in processes of their own."""
    scheduler = scheduler or os.environ.get("DASK_SCHEDULER_ADDRESS", "")
    libraries: dict[str, str] = {
        canonicalize_name(name): item.version
        for item in importlib.metadata.distributions()
        if (name := item.metadata["Name"]) is not None
    }
    cache = default_cache()
    gpus, tightest = driver_gpus(), tightest_limit()
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        system=f"{platform.system()} {platform.machine()}",
        libraries=libraries,
        required=_requirements(),
        torch_cuda=cuda_of_torch(libraries),
        broken=dict(failing_imports(libraries)),
        gpus=gpus,
        cores=cores(),
        memory=(float(max(0, tightest.free)), float(tightest.allowed)),
        limit=tightest.name,
        disk=_free_space([Path.cwd(), cache]),
        unwritable=dict(_unwritable({"the cache": cache, "temporary files": Path(tempfile.gettempdir())})),
        locks=_why_no_locks(cache),
        shared_memory=float(shutil.disk_usage(SHARED_MEMORY).total) if SHARED_MEMORY.is_dir() else None,
        largest_file=_soft_limit(resource.RLIMIT_FSIZE),
        open_files=_soft_limit(resource.RLIMIT_NOFILE),
        encoding=sys.getfilesystemencoding(),
        hidden=visible(os.environ.get(VARIABLE), [gpu.uuid for gpu in gpus]).problem,
        network=_network_trouble(),
        credentials=_credential_state(),
        scheduler=scheduler,
        unreachable=(why_unreachable(scheduler) or why_unusable(scheduler)) if scheduler else "",
    )


def _requirements() -> list[str]:
    try:
        listed = importlib.metadata.requires("eravane") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [line for line in listed if "extra ==" not in line]


def cuda_of_torch(libraries: Mapping[str, str]) -> int:
    """Major CUDA version that the installed torch was built for; 0 for a CPU build or none."""
    version = libraries.get("torch", "")
    built = re.search(r"\+cu(\d+)\d$", version)
    if built:
        return int(built.group(1))
    if not version or "+" in version:
        return 0
    needed = " ".join(importlib.metadata.requires("torch") or [])
    nccl = re.search(r"nvidia-nccl-cu(\d+)", needed)
    return int(nccl.group(1)) if nccl else 0


def failing_imports(libraries: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Installed modules that cannot be imported, and why; each is tried in a process of its own."""
    wanted = {"xgboost": "xgboost", "torch": "torch", "cupy": "cupy-cuda", "pylibcudf": "pylibcudf-cu"}
    for module, prefix in wanted.items():
        if not any(name.startswith(prefix) for name in libraries):
            continue
        command = [sys.executable, "-c", f"import {module}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=IMPORT_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            yield module, f"no end after {IMPORT_SECONDS:.0f} s"
            continue
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            yield module, lines[-1] if lines else f"the process ended with {done.returncode}"


def driver_gpus() -> list[Gpu]:
    """GPUs that nvidia-smi lists, none where it fails; NVML's bindings come with a GPU extra, which may be missing."""
    query = "--query-gpu=name,driver_version,memory.total,memory.free,uuid"
    try:
        command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
        lines = subprocess.run(
            command, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [gpu for line in lines if (gpu := parse_gpu(line)) is not None]


def parse_gpu(line: str) -> Gpu | None:
    """The GPU in a line of nvidia-smi; None where it reports no numbers."""
    name, *values = (value.strip() for value in line.split(","))
    if len(values) != 4 or not all(re.fullmatch(r"\d+(\.\d+)*", value) for value in values[:3]):
        return None
    return Gpu(name, values[0], float(values[1]) * MEBIBYTE, float(values[2]) * MEBIBYTE, values[3])


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _unwritable(folders: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    for purpose, folder in folders.items():
        try:
            with tempfile.TemporaryFile(dir=_nearest(folder)) as file:
                file.write(b"x")
        except OSError as error:
            yield purpose, f"{folder}: {error.strerror}"


def _why_no_locks(folder: Path) -> str:
    try:
        descriptor = os.open(_nearest(folder), os.O_RDONLY)
    except OSError:
        return ""  # `_unwritable` names it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return ""
    except OSError as error:
        return f"{folder}: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def _soft_limit(kind: int) -> int | None:
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def _network_trouble() -> str:
    try:
        proxies_for("https://api-tournament.numer.ai")
        trusted_certificates(os.environ)
    except SubmitError as error:
        return str(error)
    return ""


def _free_space(folders: Sequence[Path]) -> dict[str, float]:
    """Free bytes at each folder, or at its nearest parent that exists; one entry per file system."""
    found: dict[int, tuple[str, float]] = {}
    for folder in folders:
        existing = _nearest(folder)
        found.setdefault(existing.stat().st_dev, (str(existing), float(shutil.disk_usage(existing).free)))
    return dict(found.values())


def _credential_state() -> str:
    try:
        return "absent" if find_credentials() is None else "present"
    except (SubmitError, OSError) as error:
        return str(error)


def why_unreachable(address: str) -> str:
    """Why a Dask scheduler cannot be reached; empty where it can."""
    parts = urlsplit(address if "://" in address else f"tcp://{address}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not port:
        return "expected an address such as tcp://host:8786"
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def why_unusable(address: str) -> str:
    """Why what answers at an address cannot do the work: no scheduler, or other versions; empty where it can."""
    try:
        with connect(address) as client:
            check_versions(client, address)
    except RunError as error:
        return str(error)
    return ""
