"""Builds a .cu source and the emulator's runtime into a shared library with g++ or clang++."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal

Sanitizer = Literal["none", "address", "thread"]

HERE = Path(__file__).resolve().parent
HEADER, RUNTIME = HERE / "cuda_on_cpu.h", HERE / "runtime.cpp"
COMPILERS = ("g++", "clang++", "c++")
# No contraction into fused multiply-adds: as NVRTC with --fmad=false.
FLAGS = ("-std=c++17", "-O2", "-g1", "-fPIC", "-ffp-contract=off", "-fvisibility=hidden")
KERNEL_FLAGS: dict[Sanitizer, tuple[str, ...]] = {
    "none": (),
    "address": ("-fsanitize=address",),
    "thread": ("-fsanitize=thread",),
}
RUNTIME_FLAGS: dict[Sanitizer, tuple[str, ...]] = {"none": (), "address": (), "thread": ("-DEMULATED_TSAN",)}
# clang++ links its runtimes into programs, which a library that Python loads is not.
CLANG_LINK = ("-shared-libsan",)
PRELOADS: dict[Sanitizer, tuple[str, ...]] = {
    "address": ("libasan.so", "libclang_rt.asan-x86_64.so", "libclang_rt.asan.so"),
    "thread": ("libtsan.so", "libclang_rt.tsan-x86_64.so", "libclang_rt.tsan.so"),
}
TRIAL = "#include <vector>\nint trial(const std::vector<int>& some) { return some.at(0); }\n"

KERNEL = re.compile(r"__global__\s+void\s+(?:__launch_bounds__\(([^)]*)\)\s*)?(\w+)\s*\(")
DYNAMIC_SHARED = re.compile(r"extern\s+__shared__\s+([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;")
SHARED = re.compile(r"(?<!\w)__shared__\s+([^;=]+);")
BRACKETS = re.compile(r"\[[^\]]*\]|<[^<>]*>")


@cache
def compiler() -> tuple[str, ...]:
    """The C++ compiler and its own options: $CXX, else the first of g++, clang++ and c++; empty where none is."""
    chosen = tuple(shlex.split(os.environ.get("CXX", "")))
    return chosen or next(((name,) for name in COMPILERS if shutil.which(name)), ())


@cache
def compiler_missing(sanitizer: Sanitizer = "none") -> str:
    """Why nothing can be built here, or not with that sanitizer; empty when it can."""
    if os.uname().machine != "x86_64":
        return f"the emulator switches fibers with x86-64 instructions, this machine is {os.uname().machine}"
    if not compiler():
        return f"no C++ compiler is installed ({', '.join(COMPILERS)})"
    name = " ".join(compiler())
    if not shutil.which(compiler()[0]):
        return f"CXX is {name}, which is not installed"
    try:
        _link(sanitizer, _made(".o", TRIAL, "-c", *FLAGS, *KERNEL_FLAGS[sanitizer]))
    except RuntimeError as error:
        return f"{name} cannot build a library{_with(sanitizer)}: {str(error).splitlines()[-1]}"
    return "" if sanitizer == "none" or preload(sanitizer) else f"{name} comes without the {sanitizer} sanitizer"


def _with(sanitizer: Sanitizer) -> str:
    return "" if sanitizer == "none" else f" with the {sanitizer} sanitizer"


def preload(sanitizer: Sanitizer) -> str:
    """Path of the sanitizer's runtime, which must be loaded before Python; empty where the compiler has none."""
    names = [name for name in PRELOADS[sanitizer] if ("clang" in name) == _is_clang()]
    asked = (_run(f"-print-file-name={name}").strip() for name in names)
    # A compiler that does not know a file answers with its bare name.
    return next((path for path in asked if Path(path).is_absolute() and Path(path).exists()), "")


def kernels(source: str) -> dict[str, str]:
    """Name of every kernel in a source, and its most threads as written there ("1024" where nothing is)."""
    return {name: bound.split(",")[0] or "1024" for bound, name in KERNEL.findall(source)}


def build(source: str, sanitizer: Sanitizer) -> Path:
    """Compiles a source, unless that was done before, and returns the library's path."""
    text = _translation_unit(source)
    runtime = _made(".o", RUNTIME.read_text(), "-c", *FLAGS, *RUNTIME_FLAGS[sanitizer])
    kernels_o = _made(".o", text, "-c", *FLAGS, *KERNEL_FLAGS[sanitizer])
    return _link(sanitizer, kernels_o, runtime)


def _link(sanitizer: Sanitizer, *objects: Path) -> Path:
    flags = () if sanitizer == "none" else (f"-fsanitize={sanitizer}", *(CLANG_LINK if _is_clang() else ()))
    return _made(".so", "", "-shared", *flags, *map(str, objects))


def _translation_unit(source: str) -> str:
    entries = "".join(
        f"EMULATED_EXPORT void signature__{name}(char* out) {{ emulator::signature(&{name}, out); }}\n"
        f"EMULATED_EXPORT unsigned bound__{name}() {{ return {bound}; }}\n"
        f"EMULATED_EXPORT const char* launch__{name}(const unsigned* grid, const unsigned* threads, size_t shared, "
        f"int order, void** arguments) {{\n"
        f"    return emulator::launch(&{name}, grid, threads, shared, order, arguments);\n}}\n"
        for name, bound in kernels(source).items()
    )
    source = DYNAMIC_SHARED.sub(r"EMULATED_DYNAMIC_SHARED(\1, \2);", source)
    source = SHARED.sub(
        lambda found: found[0] + "".join(f" emulator::share({name});" for name in _names(found[1])), source
    )
    return f'#include "{HEADER.name}"\n{source}\n{entries}'


def _names(declaration: str) -> list[str]:
    """Variables of a declaration: those of "long long lefts[A / B], taken[2]" are lefts and taken."""
    while (bare := BRACKETS.sub("", declaration)) != declaration:
        declaration = bare
    return [re.findall(r"\w+", part)[-1] for part in declaration.split(",")]


def _made(suffix: str, text: str, *arguments: str) -> Path:
    """What the compiler makes of a C++ text, or of the objects among the arguments; made once and kept."""
    made = made_folder() / f"{digest(text, HEADER.read_text(), *compiler(), _version(), *arguments)}{suffix}"
    if not made.exists():
        with tempfile.TemporaryDirectory(dir=made_folder()) as scratch:
            unit, fresh = Path(scratch) / "unit.cpp", Path(scratch) / made.name
            unit.write_text(text)
            sources = (str(unit),) if text else ()
            _run(*arguments, f"-I{HERE}", *sources, "-o", str(fresh))
            fresh.replace(made)
    return made


@cache
def _version() -> str:
    return _run("--version")


def _is_clang() -> bool:
    return "clang" in _version()


def _run(*arguments: str) -> str:
    done = subprocess.run([*compiler(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(compiler())} failed:\n{done.stderr}")
    return done.stdout


def made_folder() -> Path:
    """Where what compilers make is kept, for all sessions of this user."""
    folder = Path(tempfile.gettempdir()) / f"eravane-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def digest(*texts: str) -> str:
    """A name for what is made of these."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]
