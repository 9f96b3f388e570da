"""Cores and memory that this process may use, under every limit that holds for it."""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from eravane.core.errors import ConfigError
from eravane.core.units import format_size

MEBIBYTE = 1 << 20
# What old kernels write for "no limit".
UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Limit:
    """A bound on memory.

    Attributes:
        name: where it is set, for messages.
        allowed: bytes in all.
        free: bytes of them that can still be had.
        held: bytes that this process holds already.
    """

    name: str
    allowed: int
    free: int
    held: int = 0

    @property
    def reach(self) -> int:
        """Bytes that this process can come to hold."""
        return max(0, min(self.allowed, self.free + self.held))


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_memory(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> int:
    """Bytes that this process can still get under every limit."""
    return max(0, min(limit.free for limit in memory_limits(root, environment)))


def tightest_limit(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Limit:
    """The limit under which this process can come to hold the least."""
    return min(memory_limits(root, environment), key=lambda limit: limit.reach)


def memory_limits(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> list[Limit]:
    """Every limit that holds for this process, the machine's own first.

    Args:
        root: where /proc and /sys lie.
        environment: variables (None: the process's).
    """
    found = [_machine(root), *_control_groups(root), *_resource_limits(root)]
    found += _slurm(os.environ if environment is None else environment, found[0].free)
    held = status_bytes("RssAnon", root)
    return [replace(limit, held=held) for limit in found]


def status_bytes(field: str, root: Path = Path("/")) -> int:
    """Bytes that /proc/self/status states in a field; 0 where it does not."""
    with suppress(OSError):
        text = (root / "proc/self/status").read_text(encoding="utf-8", errors="replace")
        if (found := re.search(rf"{field}:\s+(\d+) kB", text)) is not None:
            return int(found.group(1)) * 1024
    return 0


def require_addresses(needed: int) -> None:
    """Check that a program may map as many bytes as its libraries do: without them some abort without a reason.

    Raises:
        ConfigError: `ulimit -v` is lower.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_AS)
    if resource.RLIM_INFINITY != allowed < needed:
        raise ConfigError(
            f"ulimit -v allows {format_size(allowed)} of addresses, and libraries map up to {format_size(needed)} "
            "before they hold anything; `ulimit -v unlimited`, and bound memory by compute.memory or a control group"
        )


def _machine(root: Path) -> Limit:
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    with suppress(OSError):
        text = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace")
        if (found := re.search(r"MemAvailable:\s+(\d+) kB", text)) is not None:
            free = int(found.group(1)) * 1024
    return Limit("the machine", total, free)


def _control_groups(root: Path) -> Iterator[Limit]:
    """Limits of the process's control group and of every group around it, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    base = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            for mount in (base, base / "unified"):
                yield from _nested(mount, path, *names)
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _nested(base / "memory", path, *names)


def _nested(mount: Path, path: str, limit: str, usage: str, reclaimable: str) -> Iterator[Limit]:
    # In a container the mount shows the group itself at its root, and the path is that of the host.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        folder = mount.joinpath(*parts[:depth])
        with suppress(OSError, ValueError):
            text = (folder / limit).read_text(encoding="ascii").strip()
            allowed = UNLIMITED if text == "max" else int(text)
            if allowed < UNLIMITED:
                used = int((folder / usage).read_text(encoding="ascii")) - _cached(folder, reclaimable)
                yield Limit(f"the control group {folder}", allowed, allowed - used)


def _cached(folder: Path, name: str) -> int:
    """Bytes of files that the kernel gives back before it kills anything."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0


def _resource_limits(root: Path) -> Iterator[Limit]:
    for kind, field, flag in ((resource.RLIMIT_AS, "VmSize", "v"), (resource.RLIMIT_DATA, "VmData", "d")):
        soft, _ = resource.getrlimit(kind)
        if soft == resource.RLIM_INFINITY:
            continue
        used = status_bytes(field, root)
        yield Limit(f"ulimit -{flag}", soft, soft - used)


def _slurm(environment: Mapping[str, str], free: int) -> Iterator[Limit]:
    """The memory granted to a job; clusters that do not enforce it by control groups kill by polling."""
    per_node, per_cpu = environment.get("SLURM_MEM_PER_NODE", ""), environment.get("SLURM_MEM_PER_CPU", "")
    cpus = environment.get("SLURM_CPUS_ON_NODE") or environment.get("SLURM_CPUS_PER_TASK") or "1"
    granted = 0
    if per_node.isdecimal():
        granted = int(per_node)
    elif per_cpu.isdecimal() and cpus.isdecimal():
        granted = int(per_cpu) * int(cpus)
    if granted:
        yield Limit("the SLURM job", granted * MEBIBYTE, min(free, granted * MEBIBYTE))
