"""The benchmark harness: what is found, timed, judged and written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.harness import Result

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("harness_under_test", ROOT / "benchmarks" / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_programs_are_listed_with_a_line_each():
    done = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["kernels"].endswith(".")
    assert "harness" not in lines


def test_all_runs_every_program_but_the_gpus_and_tells_of_a_failure(monkeypatch):
    ran = []

    def child(command, check):
        ran.append(command[1:])
        return subprocess.CompletedProcess(command, 3 if command[3] == "bad" else 0)

    monkeypatch.setattr(benchmarks, "programs", lambda: dict.fromkeys(("bad", "gpu", "good")))
    monkeypatch.setattr(benchmarks.subprocess, "run", child)
    assert benchmarks.run_all(benchmarks.parse(["all", "--quick"])) == 1
    assert ran == [["-m", "benchmarks", name, "--quick", "--threads", "1"] for name in ("bad", "good")]
    monkeypatch.setattr(benchmarks, "programs", lambda: {"good": ""})
    assert benchmarks.run_all(benchmarks.parse(["all"])) == 0
    with pytest.raises(SystemExit):
        benchmarks.parse(["all", "--json", "all.json"])


def test_deep_trees_are_an_option_of_levels_and_saved_row_by_row(monkeypatch, tmp_path):
    saved, file = [], tmp_path / "deep.json"

    def grow(quick, save):
        assert quick
        results = []
        for number in range(2):
            results.append(Result(f"row_{number}", 1.0, "x"))
            save(results)
            saved.append(len(json.loads(file.read_text())["results"]))
        return results

    deep = ModuleType("benchmarks.levels_deep")
    deep.deep = grow  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.levels_deep", deep)
    benchmarks.run(benchmarks.parse(["levels", "--deep", "--quick", "--json", str(file)]))
    assert saved == [1, 2]
    for wrong in (["zoo", "--deep"], ["levels", "--levels"]):
        with pytest.raises(SystemExit):
            benchmarks.parse(wrong)


def test_the_zoo_of_the_level_grower_alone(monkeypatch, tmp_path):
    zoo, file = ModuleType("benchmarks.zoo"), tmp_path / "zoo.json"
    zoo.levels = lambda quick: [Result("row", float(quick), "x")]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.zoo", zoo)
    benchmarks.run(benchmarks.parse(["zoo", "--levels", "--quick", "--json", str(file)]))
    found = json.loads(file.read_text())
    assert found["environment"]["command"] == "python -m benchmarks zoo --levels --quick"
    assert [row["value"] for row in found["results"]] == [1.0]


def test_an_unknown_program_is_bad_usage():
    done = subprocess.run([sys.executable, "-m", "benchmarks", "nothing"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("value", "goal", "better", "verdict"),
    [
        (40.0, 40.0, "higher", "met"),
        (39.9, 40.0, "higher", "MISSED"),
        (2.5, 2.5, "lower", "met"),
        (2.6, 2.5, "lower", "MISSED"),
        (7.0, None, "higher", ""),
        (float("nan"), 1.0, "lower", "MISSED"),
    ],
)
def test_goals_are_judged(harness, value, goal, better, verdict):
    assert harness.Result("name", value, "x", goal, better).verdict == verdict


def test_jobs_run_in_turn_and_the_first_round_is_not_counted(harness, monkeypatch):
    clock, order = [0.0], []

    def job(name, costs):
        def call():
            order.append(name)
            clock[0] += costs.pop(0)

        return harness.Job(name, call, 0.5 if name == "peer" else 1.0)

    monkeypatch.setattr(harness.time, "process_time", lambda: clock[0])
    medians = harness.seconds([job("ours", [100.0, 1.0, 3.0, 2.0]), job("peer", [100.0, 5.0, 5.0, 9.0])], 3)
    assert order == ["ours", "peer"] * 4
    assert medians == [2.0, 10.0]


def test_the_json_holds_environment_and_results(harness, tmp_path):
    results = [harness.Result("ratio", 612.0, "x", 300.0, "higher", "ours 1 ms"), harness.Result("size", 3.0, "GB")]
    facts = harness.environment("kernels", quick=True, threads=1)
    harness.write_json(tmp_path / "out.json", facts, results)
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["environment"]["command"] == "python -m benchmarks kernels --quick"
    assert written["environment"]["numpy"]
    assert written["results"] == [
        {"name": "ratio", "value": 612.0, "unit": "x", "goal": 300.0, "better": "higher"},
        {"name": "size", "value": 3.0, "unit": "GB", "goal": None, "better": "higher"},
    ]


def test_a_missed_goal_is_printed_as_such(harness):
    text = harness.report("kernels", {"date": "today"}, [harness.Result("ratio", 12.0, "x", 40.0, detail="3 ms")])
    assert "| ratio | 12 x | at least 40 x | MISSED | 3 ms |" in text
