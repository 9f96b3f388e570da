"""Instructions and registers of every CUDA kernel as NVRTC compiles it for sm_90, beside an earlier count."""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import Result, say
from eravane_kernels.cuda.runtime import OPTIONS, SOURCES, source

ARCHITECTURE = 90
# What CuPy adds to the options of a RawModule.
BY_CUPY = ("--device-as-default-execution-space", "-ftz=true")
# Commit adca3c4, by the same compiler; kernels of that version that are gone count for those that took their work.
BEFORE = {
    "level_counts": 759, "apply_table": 684, "grow_output": 408, "grow_list": 223, "grow_part": 1956,
    "grow_decide": 975, "grow_evaluate": 1689, "grow_count_rows": 1460, "grow_count_rows_missing": 1553,
    "grow_count_weights": 1769, "grow_count_weights_missing": 2034, "grow_pack": 653, "grow_quantise": 1264,
    "grow_measure": 629,
}  # fmt: skip
TOOK_OVER = {
    "grow_pack_rows": ("grow_pack", "grow_count_rows"),
    "grow_pack_rows_missing": ("grow_pack", "grow_count_rows_missing"),
    "grow_pack_weights": ("grow_pack", "grow_count_weights"),
    "grow_pack_weights_missing": ("grow_pack", "grow_count_weights_missing"),
    "grow_part": ("grow_part", "grow_output"),
}
RESOURCES = re.compile(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", re.DOTALL)
SECTION = re.compile(r"^\.text\.(\w+):")
INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_]+)")


def main(quick: bool) -> list[Result]:
    """Compile every source and count; a quick run takes one source."""
    disassembler = found_disassembler()
    if not disassembler:
        say("instructions: nvdisasm is missing: pip install nvidia-cuda-nvdisasm, or name it in NVDISASM")
        return []
    files = sorted(path.stem for path in SOURCES.glob("*.cu"))
    return [result for file in (files[:1] if quick else files) for result in of_file(file, disassembler)]


def of_file(file: str, disassembler: str) -> Iterator[Result]:
    """Instructions of each kernel of a source."""
    say(f"instructions: {file}")
    code, log = compiled(source(file))
    registers = dict(RESOURCES.findall(log))
    for name, counts in disassembled(code, disassembler).items():
        most = ", ".join(f"{number} {operation}" for operation, number in counts.most_common(6))
        before = [BEFORE[other] for other in TOOK_OVER.get(name, (name,)) if other in BEFORE]
        was = f"; before {' + '.join(map(str, before))}" if before else ""
        yield Result(
            f"{file}.{name}", sum(counts.values()), "", None, "lower", f"{registers[name]} registers; {most}{was}"
        )


def compiled(text: str) -> tuple[bytes, str]:
    """Machine code of a source, and the compiler's log.

    Raises:
        RuntimeError: it does not compile.
    """
    from cuda.bindings import nvrtc

    flags = [*OPTIONS, *BY_CUPY, f"-arch=sm_{ARCHITECTURE}", "--ptxas-options=-v"]
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"source.cu", 0, [], [])
    status = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])[0]
    log = bytearray(nvrtc.nvrtcGetProgramLogSize(program)[1])
    nvrtc.nvrtcGetProgramLog(program, log)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(log.decode())
    code = bytearray(nvrtc.nvrtcGetCUBINSize(program)[1])
    nvrtc.nvrtcGetCUBIN(program, code)
    return bytes(code), log.decode()


def disassembled(code: bytes, disassembler: str) -> dict[str, Counter[str]]:
    """Instructions of each kernel by operation; padding does not count."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run([disassembler, "-c", file.name], capture_output=True, text=True, check=True)
    found: dict[str, Counter[str]] = {}
    kernel: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        if section := SECTION.match(line):
            kernel = found.setdefault(section.group(1), Counter())
        elif (instruction := INSTRUCTION.match(line)) and instruction.group(1) != "NOP":
            kernel[instruction.group(1)] += 1
    return found


def found_disassembler() -> str:
    """Path of nvdisasm; empty where there is none."""
    beside = [Path(folder) / "nvidia" / "cu13" / "bin" / "nvdisasm" for folder in site.getsitepackages()]
    candidates = (os.environ.get("NVDISASM"), shutil.which("nvdisasm"), *beside)
    return next((str(path) for path in candidates if path and Path(path).is_file()), "")
