"""Every call of CuPy, RMM, pylibcudf and Dask-CUDA fits the library that is to be installed."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import LocalCluster

from eravane_kernels.cuda.runtime import SOURCES
from tests.backend.contracts.signatures import Call, calls, calls_of, function, imports_for, refusal

ROOT = Path(__file__).resolve().parents[3]
SITE = Path(os.environ.get("ERAVANE_CONTRACTS", ROOT / ".contracts")) / "site"
BACKEND = ROOT / "engine" / "eravane" / "backend"
KERNELS = ROOT / "kernels" / "eravane_kernels" / "cuda"

pytestmark = pytest.mark.skipif(
    not SITE.is_dir(), reason="no GPU libraries are unpacked; tools/contract-wheels does it"
)

RMM, PARQUET = "rmm/pylibrmm/memory_resource/_memory_resource.pyi", "pylibcudf/io/parquet.pyi"
COLUMN, TABLE, TYPES = "pylibcudf/column.pyi", "pylibcudf/table.pyi", "pylibcudf/io/types.pyi"
# What is called, as our files write it, beside where its definition lies.
OURS = {
    "cuda_memory.py": {
        "mr.CudaAsyncMemoryResource": (RMM, "CudaAsyncMemoryResource"),
        "mr.CudaMemoryResource": (RMM, "CudaMemoryResource"),
        "mr.PoolMemoryResource": (RMM, "PoolMemoryResource"),
        "mr.StatisticsResourceAdaptor": (RMM, "StatisticsResourceAdaptor"),
        "growing.pool_size": (RMM, "PoolMemoryResource.pool_size"),
        "rmm.mr.set_current_device_resource": (RMM, "set_current_device_resource"),
    },
    "cuda_parquet.py": {
        "plc.io.SourceInfo": (TYPES, "SourceInfo"),
        "plc.io.parquet.ParquetReaderOptions.builder": (PARQUET, "ParquetReaderOptions.builder"),
        "plc.io.parquet.ParquetReaderOptions.builder(plc.io.SourceInfo([str(path)])).build": (
            PARQUET, "ParquetReaderOptionsBuilder.build",
        ),
        "options.set_column_names": (PARQUET, "ParquetReaderOptions.set_column_names"),
        "options.set_row_groups": (PARQUET, "ParquetReaderOptions.set_row_groups"),
        "plc.io.parquet.ChunkedParquetReader": (PARQUET, "ChunkedParquetReader"),
        "reader.has_next": (PARQUET, "ChunkedParquetReader.has_next"),
        "reader.read_chunk": (PARQUET, "ChunkedParquetReader.read_chunk"),
        "chunk.column_names": (TYPES, "TableWithMetadata.column_names"),
        "chunk.tbl.columns": (TABLE, "Table.columns"),
        "column.type": (COLUMN, "Column.type"),
        "column.type().id": ("pylibcudf/types.pyi", "DataType.id"),
        "column.null_count": (COLUMN, "Column.null_count"),
        "column.data": (COLUMN, "Column.data"),
        "column.null_mask": (COLUMN, "Column.null_mask"),
        "column.size": (COLUMN, "Column.size"),
    },
    "cuda_cluster.py": {"LocalCUDACluster": ("dask_cuda/local_cuda_cluster.py", "LocalCUDACluster")},
}  # fmt: skip
# Names that stand for a library's objects in those files: each of their calls must be in the table.
FOREIGN = re.compile(r"(plc|options|reader|chunk|column|mr|growing|rmm|LocalCUDACluster)\b")


def refusals(text: str, name: str) -> list[str]:
    """What is wrong with the calls of a source."""
    found = []
    for call in calls_of(text, name):
        if call.name in OURS[name]:
            found += refused(call, *OURS[name][call.name])
        elif FOREIGN.match(call.name):
            found.append(f"{call.where}: no contract for {call.name}")
    return found


def refused(call: Call, path: str, dotted: str) -> list[str]:
    """Why a call fits no definition, or is one that the library warns of, or needs what is not installed."""
    definitions = function(SITE / path, dotted)
    # Dask-CUDA hands on to the cluster it is made of what it does not know.
    above = inspect.signature(LocalCluster).parameters if dotted == "LocalCUDACluster" else {}
    call = replace(call, named=tuple(name for name in call.named if name not in above or _takes(definitions[0], name)))
    why = [refusal(call, definition) for definition in definitions]
    found = [] if "" in why else why[:1]
    source = (SITE / path).with_suffix(".pyx")
    owner, _, method = dotted.rpartition(".")
    if owner and source.exists() and f'_warn_deprecated("{method}"' in source.read_text(encoding="utf-8"):
        found.append(f"{call.where}: {call.name} is deprecated")
    needs = [module for name in call.named for module in imports_for(definitions[0], name)]
    return found + [f"{call.where}: {call.name} with {call.named} needs {module}" for module in needs]


def _takes(definition: ast.FunctionDef, name: str) -> bool:
    return name in {argument.arg for argument in (*definition.args.args, *definition.args.kwonlyargs)}


@pytest.mark.parametrize("name", OURS)
def test_calls_fit(name: str) -> None:
    assert refusals((BACKEND / name).read_text(encoding="utf-8"), name) == []


@pytest.mark.parametrize("name", OURS)
def test_every_contract_is_of_a_call(name: str) -> None:
    assert set(OURS[name]) <= {call.name for call in calls(BACKEND / name)}


PUT_BACK: dict[str, tuple[str, Callable[[str], str], str]] = {
    "5: a pool of Dask-CUDA's own": (
        "cuda_cluster.py", lambda text: text.replace("device_memory_limit=0,", "rmm_async=True,"),
        "needs rmm",
    ),
    "9: a deprecated setter": (
        "cuda_parquet.py", lambda text: text.replace("options.set_column_names", "options.set_columns"),
        "no contract for options.set_columns",
    ),
    "a parameter that is swallowed by **kwargs": (
        "cuda_cluster.py", lambda text: text.replace("n_workers=workers", "workers=workers"),
        "has no parameter workers",
    ),
    "an argument too many": (
        "cuda_parquet.py", lambda text: text.replace("set_row_groups([[group]])", "set_row_groups([[group]], 0, 0)"),
        "takes .* arguments by position",
    ),
    "8: a pool of half the card": (
        "cuda_memory.py", lambda text: text.replace("initial_pool_size=", "first_size="), "has no parameter first_size",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", PUT_BACK)
def test_a_failure_that_is_put_back_is_seen(what: str) -> None:
    name, edit, message = PUT_BACK[what]
    text = (BACKEND / name).read_text(encoding="utf-8")
    assert edit(text) != text
    assert re.search(message, "\n".join(refusals(edit(text), name)))


def test_a_deprecated_setter_is_seen_where_it_has_a_contract() -> None:
    call = Call("options.set_columns", 1, (), "here")
    assert refused(call, PARQUET, "ParquetReaderOptions.set_columns") == ["here: options.set_columns is deprecated"]


def frames_of_cudf(folder: Path) -> list[str]:
    """Files of ours that import cuDF, in whatever way: pylibcudf below it makes no frames."""
    found = []
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            named += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in (
                "import_module",
                "__import__",
            ):
                named += [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            if any(str(name).partition(".")[0] == "cudf" for name in named):
                found.append(path.name)
    return found


FRAMES = {
    # As the review found it.
    "imported where it is used": """
        def table(values_CN, names):
            import cudf

            return cudf.DataFrame({name: cudf.Series(column) for name, column in zip(names, values_CN, strict=True)})
        """,
    "by one of its names": "from cudf.core.dataframe import DataFrame as Frame",
    "by another name": "import numpy, cudf.core as made",
    "by a string": "import importlib\nmade = importlib.import_module('cudf').DataFrame",
    "by the built-in function": "made = __import__('cudf').DataFrame",
}


@pytest.mark.parametrize("how", FRAMES)
def test_a_frame_of_cudf_that_is_put_back_is_seen(how: str, tmp_path: Path) -> None:
    shutil.copytree(BACKEND, tmp_path / "backend")
    assert frames_of_cudf(tmp_path) == []
    with (tmp_path / "backend" / "cuda.py").open("a", encoding="utf-8") as file:
        file.write("\n" + textwrap.dedent(FRAMES[how]))
    assert frames_of_cudf(tmp_path) == ["cuda.py"]


def test_no_frame_of_cudf_comes_between_columns_and_xgboost() -> None:
    """Failure 6: XGBoost calls `astype({})` on a frame, for which cuDF copies every column."""
    definition = function(SITE / "cudf/core/frame.py", "Frame.astype")[0]
    body = (SITE / "cudf/core/frame.py").read_text(encoding="utf-8").splitlines()
    text = "\n".join(body[definition.lineno : definition.end_lineno])
    assert re.search(r"if copy is None:\s+copy = True", text), "cuDF no longer copies: a frame could be passed on"
    assert frames_of_cudf(ROOT / "engine") == frames_of_cudf(ROOT / "kernels") == []


COMPILES = """
import json, sys
import cupy
from cupy.cuda import compiler
from eravane_kernels.cuda.runtime import OPTIONS, source
compiler._get_arch_for_options_for_nvrtc = lambda arch: (f"-arch=sm_{arch}", "cubin")  # asks the device otherwise
assert "-ftz=true" in open(compiler.__file__).read(), "CuPy no longer flushes: see cu/floats.cuh"
made = {}
for name in json.loads(sys.argv[1]):
    code, _ = compiler.compile_using_nvrtc(source(name), (*OPTIONS, "-ftz=true"), sys.argv[2])
    made[name] = len(code)
print(json.dumps(made))
"""


def within(script: str, *arguments: str) -> str:
    """What a script prints that imports the libraries."""
    paths = (SITE, ROOT / "kernels", ROOT / "engine")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    call = [sys.executable, "-W", "ignore", "-c", script, *arguments]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _needs_cupy() -> None:
    pytest.importorskip("cuda.bindings", reason="NVRTC is not installed")
    probe = [sys.executable, "-c", "import cupy"]
    found = subprocess.run(probe, env={**os.environ, "PYTHONPATH": str(SITE)}, capture_output=True, check=False)
    if found.returncode:
        pytest.skip("CuPy's wheel is of another Python")


@pytest.mark.parametrize("architecture", ["80", "90"])
def test_cupy_compiles_every_source(architecture: str) -> None:
    _needs_cupy()
    names = sorted(path.stem for path in SOURCES.glob("*.cu"))
    made = json.loads(within(COMPILES, json.dumps(names), architecture))
    assert sorted(made) == names
    assert min(made.values()) > 1000


BOUND = """
import inspect, json, sys
import cupy, cupyx, numpy as np
problems = []
for name, positional, named, where in json.loads(sys.argv[1]):
    head, *rest = name.split(".")
    found = {"cp": cupy, "xp": cupy, "cupy": cupy, "cupyx": cupyx}[head]
    for part in rest:
        found = getattr(found, part, None)
        if found is None:
            problems.append(f"{where}: CuPy has no {name}")
            break
    if found is None:
        continue
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        continue  # of a ufunc or a compiled type
    names = {p.name for p in signature.parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
    if not set(named) <= names and not isinstance(found, cupy.ufunc):
        problems.append(f"{where}: {name} has no parameter {sorted(set(named) - names)}")
        continue
    if positional is not None:
        try:
            signature.bind_partial(*range(positional), **dict.fromkeys(named))
        except TypeError as error:
            problems.append(f"{where}: {name}: {error}")
print(json.dumps(problems))
"""
OF_CUPY = re.compile(r"(?:cp|cupy|cupyx|xp|(?:active\(\)|runtime)\.xp)((?:\.\w+)+)$")


def of_cupy(text: str, name: str) -> list[tuple[str, int | None, tuple[str, ...], str]]:
    """Calls of CuPy's functions."""
    found = []
    for call in calls_of(text, name):
        if match := OF_CUPY.match(call.name):
            head = "cupyx" if call.name.startswith("cupyx") else "cp"
            found.append((head + match.group(1), call.positional, call.named, call.where))
    return found


def test_calls_of_cupy_fit() -> None:
    _needs_cupy()
    files = [*KERNELS.glob("*.py"), *BACKEND.glob("cuda*.py")]
    asked = [call for path in files for call in of_cupy(path.read_text(encoding="utf-8"), path.name)]
    assert len(asked) > 60
    assert json.loads(within(BOUND, json.dumps(asked))) == []
    wrong = "cp.take(a, b, axes=0)\ncp.no_such(1)\ncp.cuda.Stream(blocking=1)\n"
    reported = json.loads(within(BOUND, json.dumps(of_cupy(wrong, "wrong.py"))))
    assert [problem.split(":")[1] for problem in reported] == ["1", "2", "3"]


def test_launches_are_recorded_as_cupy_records_them() -> None:
    _needs_cupy()
    within(
        "import cupy\n"
        "from cupy.cuda.graph import Graph\n"
        "assert all(hasattr(cupy.cuda.Stream, name) for name in ('begin_capture', 'end_capture', '__enter__'))\n"
        "assert hasattr(Graph, 'launch')\n"
        "assert hasattr(cupy.cuda.runtime, 'streamBeginCapture')"
    )


LIBCUDF = SITE.parent / "libcudf"
# Our own code up to the reader, which asks for a device; the last line is what is put in its place.
READS = """
import sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
import cupy, pylibcudf as plc
from pathlib import Path
from eravane.backend import cuda_parquet
path, wrong = Path(sys.argv[1]), sys.argv[2:]
table = {name: pa.array([1, 2, 3], pa.int8()) for name in ("a", "b", "c")}
pq.write_table(pa.table(table), path, row_group_size=1)
assert {name for kinds in cuda_parquet.KINDS.values() for name in kinds} <= set(plc.TypeId.__members__)
asked = []
class Reader:
    def __init__(self, options, chunk_read_limit, pass_read_limit):
        asked.append((options, chunk_read_limit, pass_read_limit))
    def has_next(self):
        return False
plc.io.parquet.ChunkedParquetReader = Reader
cuda_parquet.cp.asnumpy = np.asarray
cuda_parquet._decoded(path, 1, ["c", "a"], "int8", np.arange(1, dtype=np.int32))
((options, *limits),) = asked
assert isinstance(options, plc.io.parquet.ParquetReaderOptions)
assert limits == [cuda_parquet.CHUNK_BYTES] * 2
if wrong:
    options.set_columns(["a"])
"""


@pytest.mark.skipif(
    not LIBCUDF.is_dir(), reason="libcudf (600 MB) is not there; tools/contract-wheels --libcudf does it"
)
@pytest.mark.parametrize("put_back", [False, True], ids=["as it is", "failure 9"])
def test_options_of_the_reader_are_built_by_libcudf_without_a_warning(tmp_path: Path, put_back: bool) -> None:
    _needs_cupy()
    paths = (LIBCUDF, ROOT / "kernels", ROOT / "engine")
    # Where pylibcudf looks for libraries that lie in no environment of Python's.
    found = {"CUDA_HOME": str(LIBCUDF / "nvidia" / "cu13"), "PYTHONPATH": os.pathsep.join(map(str, paths))}
    environment = {**os.environ, **found}
    call = [sys.executable, "-W", "error", "-c", READS, str(tmp_path / "a.parquet"), *["wrong"] * put_back]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode == 0) != put_back, done.stderr[-3000:]
    assert ("FutureWarning" in done.stderr) == put_back, done.stderr[-3000:]


def test_triangles_are_solved_as_cupy_solves_them() -> None:
    solve = function(SITE / "cupyx/scipy/linalg/_solve_triangular.py", "solve_triangular")[0]
    asked = [call for call in calls(KERNELS / "projection.py") if call.name == "solve"]
    assert any("trans" in call.named for call in asked)
    assert [refusal(call, solve) for call in asked if call.named] == [""] * sum(bool(call.named) for call in asked)


def test_libraries_are_imported_without_a_gpu() -> None:
    _needs_cupy()
    within("import cupy, cupyx; import eravane.backend.cuda")
