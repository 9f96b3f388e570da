"""Every .cu file compiles for the supported architectures within the registers that its head promises.

Done with NVRTC, as CuPy does it, and needs no GPU and no driver.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import pytest

from eravane.core.files import write_atomically
from eravane_kernels.cuda.runtime import OPTIONS, SOURCES, source
from tests.support.emulator.compiler import digest, made_folder

nvrtc = pytest.importorskip(
    "cuda.bindings.nvrtc", reason="NVRTC is not installed (nvidia-cuda-nvrtc and cuda-bindings)"
)

FILES = sorted(path.stem for path in SOURCES.glob("*.cu"))
ARCHITECTURES = (80, 90, 100)
# What CuPy 14 puts around the options of a RawModule.
BY_CUPY = ("--device-as-default-execution-space", "-ftz=true")

BUDGET = re.compile(r"Registers: at\s+(?://\s+)?most (\d+), no spills", re.MULTILINE)
RESOURCES = re.compile(
    r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r".*?Used (\d+) registers",
    re.DOTALL,
)


@cache
def compiled(text, architecture):
    """PTX of a source that becomes machine code, and the compiler's log; kept as what the emulator's compiler makes."""
    flags = [*OPTIONS, *BY_CUPY, f"-arch=sm_{architecture}", "--ptxas-options=-v"]
    kept = made_folder() / f"{digest(text, *flags, _version())}.nvrtc.json"
    if not kept.exists():
        write_atomically(kept, json.dumps(_compile(text, flags)).encode())
    return json.loads(kept.read_text())


def _version():
    with suppress(PackageNotFoundError):
        return version("nvidia-cuda-nvrtc")
    return str(nvrtc.nvrtcVersion())


def _compile(text, flags):
    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"source.cu", 0, [], [])
    status = nvrtc.nvrtcCompileProgram(program, len(flags), [flag.encode() for flag in flags])[0]
    log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
    assert status == nvrtc.nvrtcResult.NVRTC_SUCCESS, log
    ptx = _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    nvrtc.nvrtcDestroyProgram(program)
    assert ".entry" in ptx
    return ptx, log


def _read(size, get, program):
    # Never bytes: NVRTC writes into what it is given, and one byte would be Python's own, shared b" ".
    buffer = bytearray(size(program)[1])
    get(program, buffer)
    return buffer.decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("file", FILES)
def test_compiles_within_its_budget(file, architecture):
    text = source(file)
    budget = int(BUDGET.search((SOURCES / f"{file}.cu").read_text()).group(1))
    _, log = compiled(text, architecture)
    found = RESOURCES.findall(log)
    assert {name for name, *_ in found} == set(re.findall(r"__global__.*?\) (\w+)\(", text))
    for name, *spilled, registers in found:
        assert [int(size) for size in spilled] == [0, 0, 0], (name, "stack frame or spills")
        assert int(registers) <= budget, name
    assert "warning" not in log, log


@pytest.mark.parametrize("file", FILES)
def test_float32_values_are_never_flushed(file):
    """CuPy's -ftz=true must touch nothing but the rounding of normal doubles to float32 in `narrow`."""
    ptx, _ = compiled(source(file), 90)
    flushing = {line.split()[0] for line in ptx.splitlines() if ".ftz" in line}
    assert flushing <= {"cvt.rn.ftz.f32.f64"}, flushing


@pytest.mark.parametrize("file", FILES)
def test_products_are_rounded_before_they_are_added(file):
    ptx, _ = compiled(source(file), 90)
    assert not re.search(r"fma\.\w+\.f(32|64)", ptx)


@pytest.mark.parametrize("file", ["tables", "limits", "records", "grow"])
def test_columns_are_read_and_written_16_bytes_at_a_time(file):
    ptx, _ = compiled(source(file), 90)
    assert re.search(r"ld\.global\.nc\.v4\.(u|b|f)32", ptx)


def test_stretches_arrive_as_bulk_copies_or_vectors_of_every_lane():
    assert "cp.async.bulk.shared::cluster.global.mbarrier" in compiled(source("levels"), 90)[0]
    older, _ = compiled(source("levels"), 80)
    assert "cp.async.cg.shared.global" in older
    assert "cp.async.bulk" not in older


def test_errors_name_the_file_and_line_they_are_in():
    lines = (SOURCES / "ranks.cuh").read_text().splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "const int slots = slots_for(rows);" in line)
    broken = source("rank").replace("const int slots = slots_for(rows);", "const int slots = nothing;")
    with pytest.raises(AssertionError, match=rf"ranks\.cuh\({number}\).*nothing"):
        compiled(broken, 90)


def test_a_kernel_over_budget_is_seen():
    text = 'extern "C" __global__ void __launch_bounds__(1024, 2) k(double* x) { double v[64];' + (
        "for (int i = 0; i < 64; i++) v[i] = x[i * 7]; for (int j = 0; j < 9; j++) for (int i = 0; i < 64; i++)"
        " v[i] = v[(i * 5 + 1) % 64] * v[i]; for (int i = 0; i < 64; i++) x[i] = v[i]; }"
    )
    _, log = compiled(text, 90)
    assert int(RESOURCES.findall(log)[0][1]) > 0
