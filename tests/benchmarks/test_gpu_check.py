"""The GPU check where there is no GPU: what it would do, what stops it, and its steps on a stand-in."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

from benchmarks import gpu, gpu_checks
from benchmarks.gpu_beside import blocks_of, falcata
from benchmarks.gpu_lab import Check, Figure, Lab, SkipError, eras_of, this_gpu
from benchmarks.gpu_report import markdown, prediction
from benchmarks.gpu_stand_in import stand_in
from benchmarks.gpu_steps import PLANS, PREDICTED, STEPS, Step, step_named
from benchmarks.gpu_trees import Work
from benchmarks.gpu_worker import perform
from tests.support import device_double as double
from tests.support.emulator import compiler_missing
from tests.support.emulator.devices import on

ROOT = Path(__file__).resolve().parents[2]
# Not installed on a machine that has torch and CuPy but not this project.
ABSENT = (
    *("xgboost", "cudf", "rmm", "pylibcudf", "dask", "dask_cuda", "distributed", "lightgbm", "polars"),
    *("numerapi", "numerai_tools", "plotly", "pytest_timeout", "psutil"),
)
BLOCKER = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Absent())
"""
WITHOUT_TREES = (
    "preflight",
    "environment",
    "bandwidth",
    "statistics",
    "tables",
    "scores",
    "levels",
    "projections",
    "meta",
)
WITH_TREES = ("widths", "boosters", "example", "sampling", "zoo")


step = step_named


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """Environment of a process on a machine without the optional libraries."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(BLOCKER)
    paths = [tmp_path / "site", ROOT / "engine", ROOT / "kernels", ROOT]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def without_gpu() -> None:
    """These tests are about machines without one."""
    try:
        this_gpu("tiny")
    except SkipError:
        return
    pytest.skip("a GPU works here")


@pytest.mark.usefixtures("without_gpu")
@pytest.mark.parametrize("sizes", ["--quick", "--full"])
def test_without_a_gpu_every_step_says_what_it_would_do(tmp_path: Path, bare: dict[str, str], sizes: str) -> None:
    """On a machine where nothing optional is installed, and where `make install` never ran."""
    result = tmp_path / "result.json"
    places = ["--state", str(tmp_path / "state"), "--json", str(result)]
    call = [sys.executable, "-m", "benchmarks", "gpu", sizes, *places]
    done = subprocess.run(call, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    steps = json.loads(result.read_text())["steps"]
    assert [found["step"] for found in steps] == [known.name for known in STEPS]
    assert {found["status"] for found in steps} == {"skipped"}
    for known in STEPS:
        assert f"it would {known.what}" in done.stdout
    assert "cupy is not installed" in done.stdout
    assert result.with_suffix(".md").read_text() in done.stdout


def test_make_gpu_check_takes_any_python() -> None:
    call = ["make", "--dry-run", "gpu-check", "PYTHON=some-python", "MODE=--full"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "PYTHONPATH=engine:kernels:." in done.stdout
    assert "some-python -m benchmarks gpu --full" in done.stdout
    assert "pip install" not in done.stdout


def test_bad_usage_is_named(tmp_path: Path) -> None:
    call = [sys.executable, "-m", "benchmarks", "gpu", "--only", "nothing"]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'nothing'" in done.stderr
    with pytest.raises(SystemExit, match="there are no wheels"):
        gpu.install(tmp_path, tmp_path / "site")
    (tmp_path / "cut-1.0-py3-none-any.whl").write_bytes(b"PK cut")
    with pytest.raises(SystemExit, match=r"cut-1\.0.*is no wheel that can be unpacked"):
        gpu.install(tmp_path, tmp_path / "site")
    with pytest.raises(SystemExit):
        gpu.parse(["--budget", "0"])


@pytest.mark.parametrize("name", WITHOUT_TREES + WITH_TREES)
def test_steps_run_on_a_stand_in(name: str) -> None:
    result = perform(step(name), stand_in())
    assert result["status"] == "done", result.get("reason")
    found = result["figures"] + result["checks"]
    assert found
    for figure in result["figures"]:
        assert np.isfinite(figure["value"]), figure
        assert figure["value"] >= 0
        assert figure["detail"] or figure["bound_of"]
    assert result["used"]["peak_bytes"] > 0
    assert "gpu" not in result["used"]


def test_steps_run_where_xgboost_and_rapids_are_absent(bare: dict[str, str]) -> None:
    script = (
        "import json; from benchmarks.gpu_stand_in import stand_in; from benchmarks.gpu_worker import perform;"
        "from benchmarks.gpu_steps import STEPS;"
        f"names = {WITHOUT_TREES + WITH_TREES!r};"
        "result = {s.name: perform(s, stand_in()) for s in STEPS if s.name in names};"
        "print(json.dumps({n: [t['status'], t.get('reason', '')] for n, t in result.items()}))"
    )
    call = [sys.executable, "-c", script]
    done = subprocess.run(call, cwd=ROOT, env=bare, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert {name: result[name][0] for name in WITHOUT_TREES} == dict.fromkeys(WITHOUT_TREES, "done"), result
    for name in WITH_TREES:
        assert result[name] == ["skipped", "needs xgboost, not installed here"]


def test_levels_are_measured_and_compared_on_the_device() -> None:
    """The step's own way to the kernels, which the emulator runs."""
    with on(2):
        result = perform(step("levels"), dataclasses.replace(stand_in(), device="cuda"))
    assert result["status"] == "done", result.get("reason")
    checks = {check["name"]: check["holds"] for check in result["checks"]}
    twins = (
        "level_grower_as_its_cpu_twin",
        "trees_evaluated_as_by_their_cpu_twin",
        "leaves_renewed_as_by_their_cpu_twin",
    )
    assert checks == dict.fromkeys(twins, True)
    names = {figure["name"] for figure in result["figures"]}
    assert "example_model_levels" in names
    assert {"levels_tree_20", "levels_together_gain", "leaves_of_two_models", "era_by_trees_of_depth_10"} <= names


def test_blocks_of_levels_are_compared_on_the_device() -> None:
    with on(2), double.installed():
        check = blocks_of(dataclasses.replace(stand_in(), device="cuda"))
    assert check.holds, check.detail


def test_falcata_is_measured_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightGBM in the place of its fork, whose interface is the same."""
    lab = stand_in()
    work = Work(lab, 12, 400)
    monkeypatch.setitem(sys.modules, "falcata", None)
    (check,) = falcata(lab, work, 3, 2.0)
    assert check.detail.startswith("not installed")
    monkeypatch.setitem(sys.modules, "falcata", lightgbm)
    (figure,) = falcata(lab, work, 3, 2.0)
    assert isinstance(figure, Figure)
    assert "EXTRAPOLATED from" in figure.detail
    monkeypatch.setattr(work, "label_N", np.zeros(7))
    (check,) = falcata(lab, work, 3, 2.0)
    assert isinstance(check, Check)
    assert check.detail.startswith("left out: ")


@pytest.mark.skipif(bool(compiler_missing()), reason=compiler_missing())
def test_loading_compares_what_both_readers_hold() -> None:
    with double.installed():
        result = perform(step("loading"), stand_in())
    assert result["status"] == "done", result.get("reason")
    assert [check["holds"] for check in result["checks"]] == [True]


@pytest.mark.full
@pytest.mark.parametrize("name", ["together", "cluster", "demo"])
def test_longer_steps_run_on_a_stand_in(name: str) -> None:
    result = perform(step(name), stand_in())
    assert result["status"] == "done", result.get("reason")


def test_tests_are_counted_and_failures_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = tmp_path / "test_case.py"
    case.write_text(
        "import pytest\npytestmark = pytest.mark.gpu\ndef test_good(): pass\ndef test_bad(): assert False\n"
        "def test_absent(): pytest.skip('needs cudf')\n@pytest.mark.full\ndef test_long(): assert False\n"
    )
    monkeypatch.setattr(gpu_checks, "ROOT", tmp_path)
    (check,) = gpu_checks.test_check(stand_in(), str(case))
    assert not check.holds
    assert check.detail == "1 passed, 1 failed, 1 skipped; skipped: needs cudf; failed: test_bad"
    case.write_text("import pytest\n@pytest.mark.gpu\ndef test_good(): pass\n")
    other = tmp_path / "test_other.py"
    other.write_text("import no_such_library\n")
    (check,) = gpu_checks.test_check(stand_in(), str(tmp_path))
    assert check.holds
    assert check.detail == "1 passed, 0 failed, 0 skipped; left out: test_other: needs no_such_library"
    other.write_text("import json\njson.no_such_function()\n")
    (check,) = gpu_checks.test_check(stand_in(), str(tmp_path))
    assert not check.holds


def test_a_check_that_does_not_hold_fails_its_step_and_an_error_keeps_what_was_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: Lab):
        yield Figure("first", 1.0, "s")
        yield gpu_checks.Check("equal", False, "off by one")

    def failing(_: Lab):
        yield Figure("first", 1.0, "s")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gpu_checks, "broken", broken, raising=False)
    monkeypatch.setattr(gpu_checks, "failing", failing, raising=False)
    result = perform(Step("broken", "", "gpu_checks:broken", (1, 1, 1)), stand_in())
    assert (result["status"], result["reason"]) == ("failed", "a check does not hold")
    result = perform(Step("failing", "", "gpu_checks:failing", (1, 1, 1)), stand_in())
    assert (result["status"], result["reason"]) == ("failed", "RuntimeError: out of memory")
    assert len(result["figures"]) == 1


@pytest.fixture
def visit(tmp_path: Path) -> gpu.Visit:
    return gpu.Visit("quick", "stand-in", tmp_path, tmp_path / "home" / "report.json", {"commit": "abc", "what": "x"})


def found_in(visit: gpu.Visit) -> dict[str, dict[str, Any]]:
    return {entry["step"]: entry for entry in json.loads(visit.report.read_text())["steps"]}


def test_a_plan_fits_its_budget_and_begins_with_what_matters_most() -> None:
    for name, plan in PLANS.items():
        steps = [step(found) for found in plan.steps]
        assert gpu.expected(steps, "quick") <= plan.budget, name
        assert plan.steps[0] == "preflight"
    assert PLANS["A"].budget + PLANS["B"].budget <= 15 * 60 - 60  # the machine must start, too
    assert max(plan.budget for plan in PLANS.values()) < 10 * 60
    assert step("preflight").seconds("quick") <= 15
    assert all(known.seconds("quick") <= known.seconds("full") for known in STEPS)


def test_steps_come_in_the_order_they_are_asked_for(visit: gpu.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def performed(_: object, asked: Step, limit: float) -> dict[str, str]:
        order.append(asked.name)
        return {"step": asked.name, "status": "done"}

    monkeypatch.setattr(gpu.Visit, "perform", performed)
    report = visit.report
    assert (
        gpu.command(["--only", "scores", "meta", "bandwidth", "--json", str(report), "--state", str(visit.state)]) == 0
    )
    assert order == ["scores", "meta", "bandwidth"]
    assert [entry["step"] for entry in json.loads(report.read_text())["steps"]] == order


def test_what_steps_found_is_kept_failed_ones_too(visit: gpu.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = STEPS[:3]
    ran: list[str] = []

    def performed(_: object, asked: Step, limit: float) -> dict[str, str]:
        ran.append(asked.name)
        return {"step": asked.name, "status": "failed" if asked is first else "done", "reason": "off by one"}

    monkeypatch.setattr(gpu.Visit, "perform", performed)
    gpu.carry_out(visit, [first, second], time.monotonic(), None, set())
    again = dataclasses.replace(visit, found=gpu.known_of(visit.report, visit.facts))
    gpu.carry_out(again, [first, second, third], time.monotonic(), None, set())
    assert ran == [first.name, second.name, third.name]
    assert found_in(visit)[first.name]["reason"] == "off by one"
    gpu.carry_out(again, [first], time.monotonic(), None, {first.name})  # asked for by name
    assert ran[-1] == first.name
    assert len(found_in(visit)) == 3
    assert gpu.known_of(visit.report, {**visit.facts, "commit": "def"}) == {}
    visit.report.write_text("{cut")
    assert gpu.known_of(visit.report, visit.facts) == {}


def test_the_report_is_written_after_every_step(visit: gpu.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill at any moment leaves what was found until then."""
    steps = [step("scores"), step("meta"), step("tables")]

    def performed(_: object, asked: Step, limit: float) -> dict[str, str]:
        known = found_in(visit)
        assert [known[past.name]["status"] for past in steps[: steps.index(asked)]] == ["done"] * steps.index(asked)
        assert known[asked.name]["status"] == "not reached"
        if asked.name == "tables":
            raise KeyboardInterrupt
        return {"step": asked.name, "status": "done"}

    monkeypatch.setattr(gpu.Visit, "perform", performed)
    with pytest.raises(KeyboardInterrupt):
        gpu.carry_out(visit, steps, time.monotonic(), None, set())
    assert [entry["status"] for entry in found_in(visit).values()] == ["done", "done", "not reached"]
    assert not list(visit.report.parent.glob("*.part"))


def test_no_step_is_begun_that_would_end_too_late(visit: gpu.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, limits = [0.0], list[float]()

    def performed(_: object, asked: Step, limit: float) -> dict[str, str]:
        limits.append(limit)
        clock[0] += min(limit, 2 * asked.seconds("quick"))  # every step takes twice what was expected
        return {"step": asked.name, "status": "failed", "reason": "slow"}

    monkeypatch.setattr(gpu.Visit, "perform", performed)
    monkeypatch.setattr(gpu.time, "monotonic", lambda: clock[0])
    plan = PLANS["A"]
    gpu.carry_out(visit, [step(name) for name in plan.steps], 0.0, plan.budget, set())
    assert clock[0] <= plan.budget
    statuses = [entry["status"] for entry in found_in(visit).values()]
    assert statuses[:4] == ["failed"] * 4
    assert "not reached" in statuses
    assert "were left" in next(e["reason"] for e in found_in(visit).values() if e["status"] == "not reached")


def test_one_process_does_the_steps_and_another_one_after_it_was_ended(visit: gpu.Visit) -> None:
    visit = dataclasses.replace(visit, sizes="tiny")
    try:
        assert visit.perform(step("bandwidth"), 120)["status"] == "done"
        first = visit.worker
        assert first is not None
        assert visit.perform(step("tables"), 120)["status"] == "done"
        assert visit.worker is first
        ended = visit.perform(step("meta"), 0.01)
        assert ended["status"] == "failed"
        assert "no end after 0 s" in ended["reason"]
        assert first.poll() is not None
        assert visit.perform(step("bandwidth"), 120)["status"] == "done"
        assert visit.worker is not first
    finally:
        visit.end()


def test_what_steps_found_outlives_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the midst of a step; another call goes on from what the report holds."""
    report = tmp_path / "out" / "report.json"
    call = [sys.executable, "-m", "benchmarks", "gpu", "--stand-in", "--json", str(report), "--state", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("engine", "kernels", "."))}

    def statuses() -> dict[str, str]:
        found = json.loads(report.read_text())["steps"] if report.is_file() else []
        return {entry["step"]: entry["status"] for entry in found}

    with subprocess.Popen(call, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as visit:
        while statuses().get("preflight") != "done":
            assert visit.poll() is None, visit.stderr and visit.stderr.read()
            time.sleep(0.05)
        visit.kill()
    kept = statuses()
    assert tuple(kept) == tuple(known.name for known in STEPS)
    assert (kept["preflight"], kept["demo"]) == ("done", "not reached")
    again = [*call, "--plan", "A", "--budget", "0.01"]
    done = subprocess.run(again, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=True)
    assert "preflight: done before" in done.stderr + done.stdout
    assert statuses() == kept


def test_a_process_that_dies_is_reported(visit: gpu.Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    visit = dataclasses.replace(visit, sizes="none")  # type: ignore[arg-type]
    monkeypatch.setattr(gpu.Visit, "environment", property(lambda _: {**os.environ, "PYTHONPATH": "", "PATH": ""}))
    monkeypatch.setattr(gpu, "ROOT", visit.state)  # where there is no module of that name
    found = visit.perform(step("bandwidth"), 60)
    visit.end()
    assert found["status"] == "failed"
    assert "ended with 1: " in found["reason"]


@pytest.mark.full
@pytest.mark.parametrize("plan", PLANS)
def test_a_whole_plan_runs_on_a_stand_in_within_its_budget(tmp_path: Path, plan: str) -> None:
    report, begin = tmp_path / "out" / "report.json", time.monotonic()
    call = [sys.executable, "-m", "benchmarks", "gpu", "--stand-in", "--plan", plan, "--json", str(report)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("engine", "kernels", "."))}
    done = subprocess.run(
        [*call, "--state", str(tmp_path / "state")], cwd=ROOT, env=environment, capture_output=True, text=True,
        timeout=PLANS[plan].budget + 60, check=False,
    )  # fmt: skip
    steps = {entry["step"]: entry for entry in json.loads(report.read_text())["steps"]}
    assert time.monotonic() - begin <= PLANS[plan].budget + 30
    assert tuple(steps) == PLANS[plan].steps
    assert not [entry for entry in steps.values() if entry["status"] == "failed"], done.stderr[-3000:]


def test_commands_of_a_visit_are_those_of_the_check() -> None:
    text = (ROOT / "tools" / "gpu-visit").read_text()
    call = next(line for line in text.splitlines() if line.startswith("CALL = "))
    for plan, known in PLANS.items():
        arguments = (
            call.partition("benchmarks gpu ")[2].rstrip('"').format(plan=plan, wheels="w", report="/out").split()
        )
        asked = gpu.parse(arguments)
        assert (asked.plan, str(asked.wheels), str(asked.json)) == (plan, "w", f"/out/{plan}.json")
        assert f'("{plan}", {known.budget})' in text


ON_THE_MACHINE = {"numpy", "numba", "pandas", "pyarrow", "scikit-learn", "scipy", "torch"}


def test_a_visit_brings_what_the_machine_lacks() -> None:
    text = (ROOT / "tools" / "gpu-visit").read_text()
    packed = {re.split(r"[<>=]", name)[0] for name in re.findall(r'"([a-z][\w.<>=*,-]*)"', text.partition("CALL")[0])}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {re.split(r"[ <>=;\[]", requirement)[0] for requirement in project["dependencies"]}
    assert wanted <= packed | ON_THE_MACHINE


def test_code_for_other_architectures_becomes_zeros(tmp_path: Path) -> None:
    """A made fat binary of two architectures and PTX, in a wheel that pip still takes."""
    spec = importlib.util.spec_from_file_location("slim_wheel", ROOT / "tools" / "slim_wheel.py")
    assert spec is not None
    assert spec.loader is not None
    slim_wheel = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(slim_wheel)

    def entry(kind: int, arch: int, code: bytes) -> bytes:
        return struct.pack("<HHIQIIHHI", kind, 0, 64, len(code), 0, 0, 0, 0, arch).ljust(64, b"\0") + code

    entries = entry(2, 90, b"K" * 40) + entry(2, 80, b"x" * 24) + entry(1, 90, b"p" * 8)
    fat = slim_wheel.MAGIC + struct.pack("<HHQ", 1, 16, len(entries)) + entries
    pruned = slim_wheel.pruned(b"head" + fat + b"tail", 90)
    assert len(pruned) == len(fat) + 8
    assert pruned.count(b"K") == 40
    assert b"x" not in pruned
    assert b"p" * 8 not in pruned
    assert pruned.startswith(b"head")
    assert pruned.endswith(b"tail")


def test_wheels_are_unpacked_beside_the_environment(tmp_path: Path) -> None:
    wheel = tmp_path / "wheels" / "tiny_thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    info = "tiny_thing-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny_thing.py", "WORD = 'unpacked'\n")
        file.writestr("tiny_thing-1.0.data/purelib/tiny_other.py", "WORD = 'beside'\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", f"tiny_thing.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    site = gpu.install(wheel.parent, tmp_path / "site")
    before = (tmp_path / "site" / "unpacked").stat().st_mtime_ns
    assert gpu.install(wheel.parent, tmp_path / "site") == site
    assert (tmp_path / "site" / "unpacked").stat().st_mtime_ns == before  # not unpacked twice
    environment = gpu.Visit("quick", "gpu", tmp_path, tmp_path / "report.json", {}, (site,)).environment
    call = [sys.executable, "-c", "import tiny_thing, tiny_other, eravane; print(tiny_thing.WORD)"]
    done = subprocess.run(call, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "unpacked"


def test_the_report_holds_value_bound_goal_and_prediction() -> None:
    figure = Figure("level_counts", 2_000.0, "GB/s", "higher", 2_500.0, "the device's own copy", 2_125.0, "a|b")
    slow = Figure("numerai_corr", 60.0, "ms", "lower", 15.0, "one read")
    used = {
        "cpu": 3.0,
        "peak_bytes": 1,
        "joules": 5_000.0,
        "gpu": {"power_watts": 500.0, "throttled": {"power cap": 0.5}},
    }
    found = [
        {"step": "statistics", "would": "measure", "status": "done", "seconds": 12.0, "used": used,
         "checks": [], "figures": [figure.as_dict(), slow.as_dict()]},
        {"step": "loading", "would": "compare", "status": "skipped", "reason": "needs pylibcudf"},
    ]  # fmt: skip
    facts = {"date": "2026-12-01 10:00 UTC", "gpu": "NVIDIA H100 80GB HBM3, 580.1"}
    text = markdown(facts, found)
    assert "| 80.0% | at least 2,125 GB/s: MISSED | 3,650 GB/s" in text
    assert "| 25.0% |" in text
    assert "a/b" in text
    assert "18 ms (14 ms of sorting" in text
    assert prediction(slow.as_dict(), "quick") is None
    assert prediction(figure.as_dict(), "quick") == PREDICTED["level_counts"]
    assert "needs pylibcudf; it would compare" in text
    assert "power cap 50%" in text


def test_eras_are_as_many_as_memory_holds() -> None:
    lab = stand_in()
    eras, offsets = eras_of(lab, 8, 1.0)
    assert eras == 3
    assert offsets.size == 4
    lab.free = lambda: 1_000
    assert eras_of(lab, 8, 1.0)[0] == 2


def test_every_prediction_belongs_to_a_figure() -> None:
    """Names in the table of predictions are those that the steps give their figures, at whatever size."""
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").glob("gpu_*.py") if "steps" not in path.name)
    sized = ("era_by_trees_of_depth_", "levels_tree_", "matrix_", "tree_", "neutralize_", "upload_")
    patterns = {prefix: f'f"{prefix}{{' for prefix in sized}
    for name in PREDICTED:
        made = next((pattern for prefix, pattern in patterns.items() if name.startswith(prefix)), None)
        assert f'"{name}"' in sources or (made is not None and made in sources), name


def test_module_names_that_steps_need_are_importable_names() -> None:
    assert {name for known in STEPS for name in known.needs} <= {*gpu_checks.LIBRARIES}
    assert all(
        hasattr(__import__(f"benchmarks.{known.job.partition(':')[0]}", fromlist=["x"]), known.job.partition(":")[2])
        for known in STEPS
    )


def test_the_stand_in_is_no_gpu() -> None:
    assert stand_in().device == "cpu"
