"""Builds a .cu source and the emulator's runtime into a shared library with g++."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Literal

Sanitizer = Literal["none", "address", "thread"]

HERE = Path(__file__).resolve().parent
HEADER, RUNTIME = HERE / "cuda_on_cpu.h", HERE / "runtime.cpp"
COMPILER = "g++"
# No contraction into fused multiply-adds: as NVRTC with --fmad=false.
FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden")
KERNEL_FLAGS: dict[Sanitizer, tuple[str, ...]] = {
    "none": (),
    "address": ("-fsanitize=address", "-fsanitize-sections=emulated_shared"),
    "thread": ("-fsanitize=thread",),
}
RUNTIME_FLAGS: dict[Sanitizer, tuple[str, ...]] = {"none": (), "address": (), "thread": ("-DEMULATED_TSAN",)}

KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\(([^)]*)\)\s*)?(\w+)\s*\(")
DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;")


def compiler_missing() -> str:
    """Why nothing can be built here; empty when it can."""
    if os.uname().machine != "x86_64":
        return f"the emulator switches fibers with x86-64 instructions, this machine is {os.uname().machine}"
    return "" if shutil.which(COMPILER) else f"{COMPILER} is not installed"


def preload(sanitizer: Sanitizer) -> str:
    """Path of the sanitizer's runtime, which must be loaded before Python."""
    library = {"address": "libasan.so", "thread": "libtsan.so"}[sanitizer]
    found = subprocess.run([COMPILER, f"-print-file-name={library}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def kernels(source: str) -> dict[str, str]:
    """Name of every kernel in a source, and its most threads as written there ("1024" where nothing is)."""
    return {name: bound.split(",")[0] or "1024" for bound, name in KERNEL.findall(source)}


def build(source: str, sanitizer: Sanitizer) -> Path:
    """Compiles a source, unless that was done before, and returns the library's path."""
    text = _translation_unit(source)
    runtime = _made(".o", RUNTIME.read_text(), "-c", *FLAGS, *RUNTIME_FLAGS[sanitizer])
    kernels_o = _made(".o", text, "-c", *FLAGS, *KERNEL_FLAGS[sanitizer])
    link = () if sanitizer == "none" else (f"-fsanitize={sanitizer}",)
    return _made(".so", "", "-shared", *link, str(kernels_o), str(runtime))


def _translation_unit(source: str) -> str:
    entries = "".join(
        f"EMULATED_EXPORT void signature__{name}(char* out) {{ emulator::signature(&{name}, out); }}\n"
        f"EMULATED_EXPORT unsigned bound__{name}() {{ return {bound}; }}\n"
        f"EMULATED_EXPORT const char* launch__{name}(const unsigned* grid, const unsigned* threads, size_t shared, "
        f"int order, void** arguments) {{ return emulator::launch(&{name}, grid, threads, shared, order, arguments, "
        f"__start_emulated_shared, __stop_emulated_shared); }}\n"
        for name, bound in kernels(source).items()
    )
    source = DYNAMIC_SHARED.sub(r"EMULATED_DYNAMIC_SHARED(\1, \2);", source)
    return f'#include "{HEADER.name}"\n{source}\n{entries}'


def _made(suffix: str, text: str, *arguments: str) -> Path:
    """What the compiler makes of a C++ text, or of the objects among the arguments; made once and kept."""
    made = _cache() / f"{_digest(text, HEADER.read_text(), *arguments)}{suffix}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
            unit, fresh = Path(scratch) / "unit.cpp", Path(scratch) / made.name
            unit.write_text(text)
            sources = (str(unit),) if text else ()
            _run(*arguments, f"-I{HERE}", *sources, "-o", str(fresh))
            fresh.replace(made)
    return made


def _run(*arguments: str) -> None:
    done = subprocess.run([COMPILER, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{COMPILER} failed:\n{done.stderr}")


def _cache() -> Path:
    folder = Path(tempfile.gettempdir()) / f"eravane-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
