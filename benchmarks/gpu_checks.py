"""Steps of `gpu` that prove equality: the tests marked gpu, loading, XGBoost, a cluster, the whole demo."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_lab import Check, Figure, Lab, importable, need
from benchmarks.gpu_steps import STEPS

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = (
    *("numpy", "pyarrow", "pandas", "numba", "scipy", "sklearn", "torch", "safetensors"),
    *("cupy", "cudf", "rmm", "pylibcudf", "dask_cuda", "distributed", "xgboost", "pynvml"),
    *("pytest", "hypothesis", "numerai_tools", "plotly", "lightgbm", "falcata"),
)
# What pytest needs of pyproject.toml, without options of plug-ins that may be absent.
PYTEST_INI = """[pytest]
addopts = --import-mode=importlib -ra
markers =
    gpu: needs a CUDA device
    full: long proof
"""
ABSENT = re.compile(r"ModuleNotFoundError: No module named '([\w.]+)'")
TOLERANCE = 1e-4  # of predictions around .5: sums of gradients in another order


TEN = 10


def preflight(lab: Lab) -> Iterator[Check | Figure]:
    """Seconds of every import, a kernel compiled and run, ten rows trained: what the other steps need at least."""
    for name in (*LIBRARIES, "eravane.pipeline.batch", "eravane.report", "eravane_kernels.cuda.boosting"):
        begin = time.perf_counter()
        try:
            importlib.import_module(name)
            holds, detail = True, f"{time.perf_counter() - begin:.1f} s"
        except Exception as error:  # whatever is missing or broken is what we want to know
            # Libraries may be missing, and then some steps are left out; our own modules may not.
            library = getattr(error, "name", None) in LIBRARIES
            holds, detail = name in LIBRARIES or library, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        yield Check(f"import_{name}", holds, detail)
    values_CN = np.arange(3 * TEN, dtype=np.int8).reshape(3, TEN) % 5
    counted = lab.host(lab.kernels.level_counts(lab.xp.asarray(values_CN), np.array([0, TEN], dtype=np.int64)))
    yield Check("kernel_runs", int(counted.sum()) == values_CN.size, "level_counts of ten rows")
    names = ["a", "b", "c"]
    for learner in ("levels", "xgboost") if importable("xgboost") else ():  # both write its model files
        block, taken = lab.once(partial(_ten_rows, lab, learner, values_CN, names))
        yield Check(f"ten_rows_{learner}", len(block) > 0, f"{len(block)} bytes in {taken:.1f} s")


def _ten_rows(lab: Lab, name: str, values_CN: Any, names: list[str]) -> bytes:
    from eravane.backend import choose
    from eravane.core.config import parse_config
    from eravane.learners.registry import make_learner

    zoo = {"learner": name, "params": {"max_depth": 2, "min_child_weight": 1, "colsample_bytree": 1.0}}
    learner = make_learner(parse_config({"zoo": zoo}).zoo, lab.device)[0]
    backend = choose("cuda" if lab.device == "cuda" else "cpu", lambda _: None, "none")
    matrix = learner.matrix(backend.table(backend.to_device(values_CN), names))
    block: bytes = learner.fit(matrix, np.linspace(0, 1, TEN, dtype=np.float32), None, trees=2, seed=0)
    return block


def environment(lab: Lab | None) -> Iterator[Check]:
    """Hardware and libraries that are here, and those that are not."""
    yield Check("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("processor", True, f"{os.cpu_count()} cores")
    for name in LIBRARIES:
        without = ", ".join(step.name for step in STEPS if name in step.needs)
        absent = f"absent: skips {without}" if without else "absent"
        yield Check(f"library_{name}", True, _version(name) if importable(name) else absent)
    if lab is not None and lab.device == "cuda":
        from eravane.backend import cuda_nvml

        for number, facts in enumerate(cuda_nvml.Gpus().facts()):
            yield Check(f"gpu_{number}", True, ", ".join(f"{name} {value}" for name, value in facts.items()))


def _version(name: str) -> str:
    found = _distributions().get(name, [name])
    try:
        return f"{found[0]} {importlib.metadata.version(found[0])}"
    except importlib.metadata.PackageNotFoundError:
        return "there"


@cache
def _distributions() -> Any:
    """Distributions of every module; takes a third of a second."""
    return importlib.metadata.packages_distributions()


def kernel_tests(lab: Lab) -> Iterator[Check]:
    """Every kernel against its NumPy specification, on this GPU."""
    yield from test_check(lab, "tests/kernels")


ENGINE_TESTS = (
    *("tests/backend", "tests/learners/test_levels_device.py", "tests/gate/test_meta_cuda.py"),
    *("tests/loop/test_decision.py", "tests/data/store/test_ingest_device.py", "tests/learners/test_forest.py"),
)


def engine_tests(lab: Lab) -> Iterator[Check]:
    """The backend's copies and readers, the level grower as a learner, trees and meta-learner against the CPU."""
    yield from test_check(lab, *ENGINE_TESTS)


def test_check(lab: Lab, *paths: str) -> Iterator[Check]:
    need("pytest", "hypothesis")
    marked = lab.pick("gpu", "gpu and not full", "gpu and not full")
    with tempfile.TemporaryDirectory() as folder:
        ini, junit = Path(folder) / "pytest.ini", Path(folder) / "junit.xml"
        ini.write_text(PYTEST_INI)
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(ini), "--rootdir", str(ROOT)]
        command += [
            "-p",
            "no:cacheprovider",
            "--continue-on-collection-errors",
            f"--junitxml={junit}",
            "-m",
            marked,
            *paths,
        ]
        if importable("xdist") and (os.cpu_count() or 1) >= 4:
            command += ["-n", "4", "--dist", "loadfile"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if not junit.is_file():
            raise RuntimeError(f"pytest wrote no report:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
        cases = list(ElementTree.parse(junit).getroot().iter("testcase"))
    failed, skipped, left_out = list[str](), list[str](), list[str]()
    for case in cases:
        name, (error, skip) = case.get("name", ""), (case.find("error"), case.find("skipped"))
        absent = ABSENT.search(error.text or "") if error is not None else None
        if absent and error is not None and error.get("message") == "collection failure":
            left_out.append(f"{name}: needs {absent.group(1)}")
        elif error is not None or case.find("failure") is not None:
            failed.append(name)
        elif skip is not None:
            skipped.append(str(skip.get("message")))
    passed = len(cases) - len(failed) - len(skipped) - len(left_out)
    detail = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
    for word, entries in (("skipped", set(skipped)), ("left out", left_out), ("failed", failed[:20])):
        detail += f"; {word}: {', '.join(sorted(entries))}" if entries else ""
    yield Check(" ".join(paths), not failed and done.returncode in (0, 1, 5), detail)
    if failed:
        print(done.stdout[-20_000:])


def loading(lab: Lab) -> Iterator[Check | Figure]:
    """Parquet decoded by cuDF's chunked reader becomes the store that Arrow's decoding becomes, byte for byte."""
    need("pylibcudf")
    from eravane.backend import choose
    from eravane.data.ingest import ingest
    from eravane.synth import PRESETS, synthesise

    decode = choose("cuda", lambda _: None, "none").decoder()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesise(folder / "data", PRESETS[lab.pick("small", "tiny", "tiny")])
        stores, taken = {}, {}
        for way, by in (("cuda", decode), ("cpu", None)):
            made, taken[way] = lab.once(partial(ingest, folder / "data", folder / way, decode=by))
            stores[way] = {path.name: path.read_bytes() for path in made.path.iterdir() if path.is_file()}
        same = stores["cuda"] == stores["cpu"]
        yield Check("cudf_ingests_as_arrow", same, f"{len(stores['cpu'])} files, byte for byte")
        yield Figure("ingest_by_cudf", taken["cuda"], "s", detail=f"by Arrow on one core {taken['cpu']:.1f} s")


def boosters(lab: Lab) -> Iterator[Check]:
    """XGBoost on the device against the CPU within rounding, and against itself bit for bit."""
    need("xgboost")
    import xgboost as xgb

    from benchmarks.gpu_work import Work
    from eravane.backend import choose
    from eravane.learners.forest import Predictor
    from eravane.learners.xgboost import fit, quantile_matrix, resolve_params

    rows, width, trees = lab.pick(200_000, 100_000, 500), lab.pick(300, 100, 6), lab.pick(100, 50, 4)
    work = Work(lab, width, rows)
    host_CN = lab.host(work.values_CN)
    whole, _ = resolve_params({"colsample_bytree": 1.0}, lab.device)
    sampled, _ = resolve_params({"colsample_bytree": 0.1}, lab.device)
    plain = {**whole, "device": "cpu"}
    matrix = work.matrix(whole)
    names = [f"f{number}" for number in range(width)]
    beside = quantile_matrix(choose("cpu", lambda _: None).table(host_CN, names), plain)
    grown = fit(matrix, work.label_N, None, trees=trees, params=whole, seed=1)
    peer = fit(beside, work.label_N, None, trees=trees, params=plain, seed=1)
    ours, theirs = (
        Predictor(block).booster.inplace_predict(host_CN.T, validate_features=False) for block in (grown, peer)
    )
    away = float(np.abs(ours - theirs).max())
    # A split between two gains that are equal to rounding may fall either way; such rows differ by more.
    close = float(np.mean(np.abs(ours - theirs) <= TOLERANCE))
    yield Check(
        "xgboost_device_as_cpu", close >= 0.999, f"{close:.2%} of {rows:,} rows within {TOLERANCE}, worst {away:.2g}"
    )
    for name, params in (("all_columns", whole), ("sampled", sampled)):
        two = [fit(work.matrix(params), work.label_N, None, trees=trees, params=params, seed=1) for _ in range(2)]
        yield Check(
            f"xgboost_twice_the_same_bytes_{name}", two[0] == two[1], f"{trees} trees, XGBoost {xgb.__version__}"
        )


def cluster(lab: Lab) -> Iterator[Check]:
    """Three cells on a Dask cluster of one worker: the bytes of a single process."""
    need("xgboost", "distributed", *(("dask_cuda",) if lab.device == "cuda" else ()))
    from benchmarks.zoo_jobs import Size, Work, prepare
    from eravane.core.config import parse_config
    from eravane.zoo.cluster import local_cluster
    from eravane.zoo.trainer import Zoo

    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), Size(30, 200, 24, 5, 3)
        prepare(folder, size)
        work = Work(folder, size)
        compute = parse_config({"compute": {"scheduler": "local", "workers": 1}}).compute
        settings = {"data": {"target": work.config.data.target}, "zoo": {"trees": size.trees}}
        blocks = []
        with local_cluster(compute, lab.device, lambda _: None) as there:
            for scheduler in ("", there.scheduler):
                config = parse_config({**settings, "compute": {"scheduler": scheduler, "workers": 1}})
                zoo = Zoo(folder / "store", config, work.timeline, xgboost_device=lab.device, cache=None)
                trained = [found for _, found in zoo.run(zoo.start_tasks(work.specs[:3], size.eras))]
                blocks.append({name: block for found in trained for name, block in found.blocks.items()})
        yield Check("cluster_as_one_process", blocks[0] == blocks[1], f"{len(blocks[0])} models, one worker")


def demo(lab: Lab) -> Iterator[Check | Figure]:
    """The whole batch on made data, on the device and on the CPU."""
    need("xgboost", "numerai_tools", "plotly")
    import eravane
    from eravane.core.config import parse_config
    from eravane.pipeline.demo import DEMO, TINY
    from eravane.report import load_run
    from eravane.synth import PRESETS, synthesise

    preset = lab.pick("small", "tiny", "tiny")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesise(folder / "data", PRESETS[preset])
        runs: dict[str, Any] = {}
        for device in dict.fromkeys((lab.device, "cpu")):
            config = parse_config({**(TINY if preset == "tiny" else DEMO), "compute": {"device": device}})
            out = folder / device
            call = lambda config=config, out=out: eravane.run(config, data=folder / "data", out=out, cache=out / "c")  # noqa: E731
            runs[device] = lab.once(call)
        run, taken = runs[lab.device]
        peer, beside = runs["cpu"]
        used = load_run(run.path).events
        grown = {event["trained_on"] for event in used if event["event"] == "trained"}
        yield Check("demo_trees_grew_on_the_device", grown == {lab.device}, ", ".join(sorted(grown)))
        ours, theirs = (found.metrics["series"]["ensemble"]["corr_mean"] for found in (run, peer))
        spread = peer.metrics["series"]["ensemble"]["corr_std"] / peer.metrics["series"]["ensemble"]["n_eras"] ** 0.5
        detail = f"{preset}: mean CORR {ours:.4f} against {theirs:.4f} on the CPU, standard error {spread:.4f}"
        yield Check("demo_scores_as_on_the_cpu", abs(ours - theirs) <= 2 * spread, detail)
        files = {path.name for path in run.path.iterdir()}
        yield Check("demo_is_complete", {"report.html", "live_predictions.csv", "telemetry.parquet"} <= files)
        yield Figure("demo", taken, "s", detail=f"preset {preset}; on the CPU {beside:.1f} s")
        eras = [event["seconds"] for event in used if event["event"] == "era"]
        later = eras[len(eras) // 4 :]
        yield Figure("loop_era", float(np.median(later)), "s", detail=f"median of {len(later)} eras of the demo's loop")
        energy = [event["joules"] for event in used if "joules" in event]
        if energy:
            yield Figure("demo_energy", sum(energy), "J", detail="whole board, all stages")
        yield from _demo_of_levels(lab, folder)


def _demo_of_levels(lab: Lab, folder: Path) -> Iterator[Check | Figure]:
    """The small demo with trees from the level grower: the models of the CPU, byte for byte."""
    import eravane
    from eravane.core.config import parse_config
    from eravane.pipeline.demo import TINY
    from eravane.synth import PRESETS, synthesise

    data, models, taken = folder / "levels", dict[str, dict[str, bytes]](), dict[str, float]()
    synthesise(data, PRESETS["tiny"])
    for device in dict.fromkeys((lab.device, "cpu")):
        settings = {**TINY, "zoo": {**TINY["zoo"], "learner": "levels"}, "compute": {"device": device}}
        config, out = parse_config(settings), folder / f"levels-{device}"
        run, taken[device] = lab.once(partial(eravane.run, config, data=data, out=out, cache=out / "c"))
        models[device] = {path.name: path.read_bytes() for path in (run.path / "models").glob("*.ubj")}
    same = bool(models["cpu"]) and models[lab.device] == models["cpu"]
    yield Check("demo_of_levels_as_on_the_cpu", same, f"{len(models['cpu'])} model files, byte for byte")
    detail = f"preset tiny, zoo.learner levels; on the CPU {taken['cpu']:.1f} s"
    yield Figure("demo_of_levels", taken[lab.device], "s", detail=detail)
