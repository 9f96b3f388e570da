"""Memory limits wherever they are set, on made trees of /proc and /sys."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from eravane.core.memory import MEBIBYTE, available_memory, memory_limits, tightest_limit

GIB = 1 << 30


def _machine(root: Path, groups: str, free: int = 16 * GIB) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {free // 1024} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    return root


def _group(folder: Path, version: int, limit: object, used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{names[2]} {cached}\n")


def test_the_machine_alone(tmp_path: Path) -> None:
    assert available_memory(_machine(tmp_path, ""), {}) == 16 * GIB


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tight", range(3))
def test_the_tightest_of_nested_groups_counts(version: int, tight: int, tmp_path: Path) -> None:
    line = "0::/slurm/job" if version == 2 else "4:cpu,memory:/slurm/job"
    root = _machine(tmp_path, f"9:pids:/\n{line}\n")
    base = root / "sys/fs/cgroup" / ("" if version == 2 else "memory")
    for depth, folder in enumerate((base, base / "slurm", base / "slurm/job")):
        none = "max" if version == 2 else 9223372036854771712
        _group(folder, version, 2 * GIB if depth == tight else none, GIB, cached=GIB // 4)
    limit = tightest_limit(root, {})
    assert limit.free == 2 * GIB - GIB + GIB // 4
    assert limit.allowed == 2 * GIB
    assert limit.name.startswith("the control group")


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    root = _machine(tmp_path, "0::/../../kubepods/pod1\n")
    _group(root / "sys/fs/cgroup", 2, GIB, 0)
    assert available_memory(root, {}) == GIB


def test_both_versions_at_once(tmp_path: Path) -> None:
    root = _machine(tmp_path, "4:memory:/a\n0::/b\n")
    _group(root / "sys/fs/cgroup/memory/a", 1, 3 * GIB, 0)
    _group(root / "sys/fs/cgroup/unified/b", 2, 2 * GIB, 0)
    assert available_memory(root, {}) == 2 * GIB


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"SLURM_MEM_PER_NODE": "2048"}, 2048 * MEBIBYTE),
        ({"SLURM_MEM_PER_CPU": "512", "SLURM_CPUS_ON_NODE": "4"}, 2048 * MEBIBYTE),
        ({"SLURM_MEM_PER_CPU": "512"}, 512 * MEBIBYTE),
        ({"SLURM_MEM_PER_NODE": "0"}, 16 * GIB),
        ({"SLURM_MEM_PER_NODE": "lots"}, 16 * GIB),
    ],
)
def test_a_slurm_job_is_held_to_what_it_was_granted(environment: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_memory(_machine(tmp_path, ""), environment) == expected


def test_damaged_and_absent_files_set_no_limit(tmp_path: Path) -> None:
    root = _machine(tmp_path, "0::/a\n")
    _group(root / "sys/fs/cgroup/a", 2, "what", 0)
    assert [limit.name for limit in memory_limits(root, {})] == ["the machine"]
    assert available_memory(tmp_path / "nowhere", {}) > 0


def test_a_ulimit_counts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))\n"
        "from eravane.core.memory import memory_limits\n"
        "print([limit.allowed for limit in memory_limits() if limit.name == 'ulimit -v'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"[{8 << 30}]")
    assert resource.getrlimit(resource.RLIMIT_AS)[0] != 8 << 30


def test_what_the_process_holds_already_is_not_asked_for_again(tmp_path: Path) -> None:
    """A plan counts the program, which is in the group's usage by the time that it is checked."""
    root = _machine(tmp_path, "0::/job\n")
    _group(root / "sys/fs/cgroup/job", 2, 2 * GIB, GIB)
    (root / "proc/self/status").write_text(f"Name: x\nRssAnon:\t{GIB // 4 // 1024} kB\n")
    limit = tightest_limit(root, {})
    assert (limit.free, limit.reach) == (GIB, GIB + GIB // 4)
    (root / "proc/self/status").write_text(f"RssAnon:\t{3 * GIB // 1024} kB\n")
    assert tightest_limit(root, {}).reach == 2 * GIB
    assert tightest_limit(root, {"SLURM_MEM_PER_NODE": "512"}).reach == GIB // 2
