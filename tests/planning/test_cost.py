"""What a run will cost: counts against a count by hand, changes that make it fit, shapes, and bad input."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from eravane.calendar.eras import EraIndex
from eravane.calendar.horizon import Horizon, TargetHorizon
from eravane.cli import runs  # noqa: F401  (registers its commands)
from eravane.cli.app import app
from eravane.core.config import RunConfig, parse_config
from eravane.core.errors import ConfigError, DataError, EravaneError
from eravane.data.catalog import FeatureCatalog
from eravane.data.ingest import ingest
from eravane.learners.forest import device_bytes
from eravane.planning import workload
from eravane.planning.cost import STAGES, CostPlan, plan_cost
from eravane.planning.rates import CPU_CORE, H100, HOST, LEVELS_H100
from eravane.planning.shape import VERSION, DataShape, published, read_shape
from eravane.planning.workload import Hardware, this_machine
from eravane.synth import SynthConfig, synthesise

TARGET = "target_ender_20"
HERE = Hardware("cpu", 2, 0, math.inf, math.inf)
BASE = {
    "data": {"target": TARGET, "feature_sets": ["small", "all"]},
    "time": {"loop_start": 61, "observed_lag": False},
    "zoo": {
        "learner": "xgboost",
        "trees": 30,
        "fold_eras": 20,
        "minimum_eras": 5,
        "folds": 2,
        "params": {"max_depth": 4},
    },
    "gate": {"warmup": 5},
    "loop": {"update": "none"},
}
SETS = {"small": ("f0", "f1", "f2"), "all": tuple(f"f{n}" for n in range(10))}
GROUPS = {"one": ("f0", "f5"), "two": ("f1", "f2", "f6", "f7")}


def shape(*, eras: int = 80, rows: int = 400, dtype: str = "int8", stored: bool = False) -> DataShape:
    index = EraIndex.from_counts(range(1, eras + 1), [rows + era for era in range(eras)])
    catalog = FeatureCatalog(SETS, GROUPS)
    horizons = {name: TargetHorizon(name, Horizon.required(name), "name") for name in (TARGET, "target_ender_60")}
    return DataShape(index, eras - 5, catalog, dtype, 3, rows, stored, horizons)


def changed(**sections: dict[str, object]) -> RunConfig:
    return parse_config({name: {**BASE.get(name, {}), **sections.get(name, {})} for name in {**BASE, **sections}})


def work_of(plan: CostPlan) -> dict[str, float]:
    return {stage.name: stage.work for stage in plan.stages}


def test_the_zoo_is_counted_as_by_hand() -> None:
    """Folds 1-12>21-40 and 1-32>41-60; cells of 3, 1, 2, 10, 2 and 4 columns; era e has 399 + e rows."""

    def rows(first: int, last: int) -> int:
        return sum(399 + era for era in range(first, last + 1))

    matrices = trees = predictions = 0.0
    for train_last, first in ((12, 21), (32, 41)):
        n, predicted = rows(1, train_last), rows(first, first + 19)
        for columns in (3, 1, 2, 10, 2, 4):
            matrices += n * columns * CPU_CORE.cell + columns * CPU_CORE.column + CPU_CORE.matrix
            tree = n * columns * 2.5 * CPU_CORE.visit + 4 * n * CPU_CORE.row_level
            trees += 30 * (tree + 16 * columns * CPU_CORE.node_column + CPU_CORE.tree)
            per_cell, per_tree, per_row, per_split = HOST.unfolded  # complete trees of depth 4: 16 places
            predictions += predicted * columns * per_cell + 30 * (per_tree + predicted * (per_row + 16 * per_split))
    work = work_of(plan_cost(changed(), shape(), HERE))
    assert work["zoo matrices"] == pytest.approx(matrices)
    assert work["zoo trees"] == pytest.approx(trees)
    assert work["predictions"] == pytest.approx(predictions)


def test_targets_and_seeds_share_matrices_and_lags_do_not() -> None:
    one = work_of(plan_cost(changed(), shape(), HERE))
    two = work_of(plan_cost(changed(zoo={"targets": [TARGET, "target_cyrus_20"], "seeds": 3}), shape(), HERE))
    assert two["zoo trees"] == pytest.approx(6 * one["zoo trees"])
    assert two["zoo matrices"] == pytest.approx(one["zoo matrices"])
    slow = {"targets": [TARGET, "target_cyrus_60"], "minimum_eras": 3}  # both folds again, though the lag is 17
    other = work_of(plan_cost(changed(zoo=slow), shape(), HERE))
    assert other["zoo matrices"] > 1.3 * one["zoo matrices"]


def test_workers_divide_the_zoo_until_its_longest_task() -> None:
    def seconds(cores: int) -> float:
        plan = plan_cost(changed(), shape(), Hardware("cpu", cores, 0, math.inf, math.inf))
        return sum(stage.seconds for stage in plan.stages if stage.name.startswith("zoo"))

    assert seconds(2) == pytest.approx(seconds(1) / 2)
    assert seconds(1000) == pytest.approx(seconds(2000))
    assert seconds(1000) > seconds(1) / 12


def test_updates_of_the_loop_count() -> None:
    def loop(**settings: object) -> float:
        return work_of(plan_cost(changed(loop=settings), shape(), HERE))["loop"]

    assert loop(update="none") < loop(update="leaves") < loop(update="refit+leaves", every=5)
    assert loop(update="refit", every=20) < loop(update="refit", every=5)
    assert loop(update="none") < loop(update="append", every=5)


def test_a_store_needs_no_ingest_and_no_new_disk() -> None:
    files, store = plan_cost(changed(), shape(), HERE), plan_cost(changed(), shape(stored=True), HERE)
    assert store.stages[0].disk == 0
    assert 0 < store.stages[0].seconds < files.stages[0].seconds / 3
    cells = (shape().index.rows + 400) * 10
    assert cells < files.stages[0].disk < 8 * cells


def test_a_gpu_has_rates_of_its_own_and_says_that_they_are_predicted() -> None:
    plan = plan_cost(changed(), shape(), Hardware("cuda", 16, 2, math.inf, math.inf))
    assert "predicted" in plan.rates
    assert plan.rates == H100.name
    assert plan.device_memory > 0
    assert plan.features in plan.lines()
    assert "all 10 columns stay on the device" in plan.features
    assert plan_cost(changed(), shape(), HERE).features == ""
    assert plan_cost(changed(), shape(), HERE).device_memory == 0


def test_what_stays_on_gpus_of_different_size_is_planned_by_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, needed = Hardware("cuda", 16, 2, math.inf, math.inf), 10 * -(-shape().index.rows // 128) * 128
    training = plan_cost(changed(), shape(), gpu).device_memory

    def of(*sizes: int) -> str:
        facts = [{"memory_bytes": size + workload.RESERVED + training, "name": f"{size} B"} for size in sizes]
        gpus = SimpleNamespace(facts=lambda: facts)
        monkeypatch.setitem(sys.modules, workload.NVML, SimpleNamespace(Gpus=lambda: gpus))
        return plan_cost(changed(), shape(), gpu).features

    assert of(needed, 9 * needed).startswith("all 10 columns stay on the device")
    for sizes in ((9 * needed, needed - 1), (needed - 1, 9 * needed)):
        assert "streamed to the device" in (answer := of(*sizes))
        assert answer.endswith(f"({needed - 1} B)")


def test_levels_on_a_gpu_are_planned_by_rates_and_memory_of_their_own() -> None:
    gpu = Hardware("cuda", 16, 1, math.inf, math.inf)
    zoo = {"params": {"max_depth": 4, "colsample_bytree": 0.5}}
    stock = plan_cost(changed(zoo=zoo), shape(), gpu)
    levels = plan_cost(changed(zoo={**zoo, "learner": "levels"}), shape(), gpu)
    assert levels.rates == LEVELS_H100.name
    assert work_of(levels)["zoo trees"] < work_of(stock)["zoo trees"]
    rows = sum(399 + era for era in range(1, 33))
    of_columns, of_records, of_rows = 15 * rows, 16 * rows, (28 + 8 + 4) * rows
    sums = 8 * 5 * 2 * 8 * 6 * 2 + 2 * 4 * 5 * 5 * 2 * 8  # depth 4: 8 nodes of a level, 4 of them counted
    trees = 1024 * (4 * 8 * 7 * 8 + 8 * (5 + 1))
    predicting = 6 * 30 * 31 * 16  # models of six cells, 30 trees of 31 nodes
    training = of_columns + of_records + of_rows + sums + trees
    assert levels.device_memory == pytest.approx(training + predicting, rel=0.01)
    more = plan_cost(changed(zoo={**zoo, "learner": "levels", "trees": 3000}), shape(), gpu)
    assert more.device_memory - levels.device_memory == 99 * predicting


@pytest.mark.parametrize(
    ("params", "nodes"),
    [({"max_depth": 3}, 15), ({"max_depth": 0, "max_leaves": 9}, 17), ({"max_depth": 8, "max_leaves": 4}, 7)],
)
def test_trees_on_a_gpu_have_the_nodes_that_their_limits_allow(params: dict[str, int], nodes: int) -> None:
    assert device_bytes(10, params) == 10 * nodes * 16


@pytest.mark.parametrize(("device", "budget"), [("cpu", "1100MB"), ("cuda", "600MB")])
def test_every_alternative_fits(device: str, budget: str) -> None:
    large = shape(rows=60_000)
    hardware = Hardware(device, 8, 1, 4e9, math.inf)
    config = changed(compute={"memory": budget}, loop={"update": "refit"})
    plan = plan_cost(config, large, hardware)
    assert not plan.fits
    assert any(line.startswith("DOES NOT FIT") for line in plan.lines())
    assert plan.alternatives
    for change in plan.alternatives:
        key, _, value = change.partition(" (")[0].partition(" = ")
        section, _, name = key.partition(".")
        better = changed(compute={"memory": budget}, loop={"update": "refit"})
        table = dataclasses.replace(getattr(better, section), **{name: tomllib.loads(f"x = {value}")["x"]})
        better = dataclasses.replace(better, **{section: table})
        fitting = large
        if name == "feature_sets":
            kept = {key: SETS[key] for key in better.data.feature_sets}
            fitting = dataclasses.replace(large, catalog=dataclasses.replace(large.catalog, sets=kept))
        assert plan_cost(better, fitting, hardware).fits, change


def test_a_full_disk_is_reported() -> None:
    plan = plan_cost(changed(), shape(), Hardware("cpu", 2, 0, math.inf, 1e6))
    assert not plan.fits
    assert any("of disk needed, 1.0 MB free" in line for line in plan.lines())


def test_the_plan_as_json_adds_up() -> None:
    plan = plan_cost(changed(), shape(), HERE)
    answer = json.loads(json.dumps(plan.as_dict()))
    assert [stage["name"] for stage in answer["stages"]] == list(STAGES)
    assert answer["seconds"] == pytest.approx(sum(stage["seconds"] for stage in answer["stages"]))
    assert answer["memory"] == max(stage["memory"] for stage in answer["stages"])
    assert answer["free_disk"] is None
    assert answer["fits"] is True


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shape")
    return synthesise(
        folder / "data", SynthConfig(main_target="target_ender_20", eras=60, rows=40, features=24, groups=4, seed=2)
    )


def test_files_and_store_have_the_shape_of_the_data(made: Path, tmp_path: Path) -> None:
    config = parse_config({"data": {"feature_sets": ["small", "all"]}})
    files = read_shape(made, config)
    store = ingest(made, tmp_path / "store")
    stored = read_shape(tmp_path / "store", config)
    for found in (files, stored):
        assert found.index.labels.tolist() == store.index.labels.tolist()
        assert found.index.counts.tolist() == store.index.counts.tolist()
        assert found.newest_label == 55
        assert found.targets == len(store.targets)
        assert found.dtype == store.dtype
        live = store.live()
        assert live is not None
        assert found.live_rows == live.index.rows
    assert (files.stored, stored.stored) == (False, True)
    assert files.catalog == stored.catalog


def test_the_published_shape_is_that_of_the_real_features_json(real_features_json: Path) -> None:
    real = FeatureCatalog.load(real_features_json)
    known = published(RunConfig()).catalog
    assert [(c.name, len(c.columns)) for c in known.cells()] == [(c.name, len(c.columns)) for c in real.cells()]
    assert len(known.columns) == len(real.columns)


def test_the_published_shape_has_37_cells() -> None:
    found = published(parse_config({"data": {"feature_sets": ["small", "medium", "large"]}}))
    assert len(found.catalog.cells()) == 37
    assert found.index.rows == 1231 * 5567


def test_ready_configurations_can_be_planned() -> None:
    for name in ("v5.3-gpu", "v5.3-xgboost-gpu", "v5.3-cpu"):
        config = parse_config(tomllib.loads((Path(__file__).parents[2] / "configs" / f"{name}.toml").read_text()))
        plan = plan_cost(config, published(config), Hardware("cuda", 16, 1, math.inf, math.inf))
        assert plan.seconds > 60
        assert ('"auto" is "levels"' in "\n".join(plan.lines())) == (name != "v5.3-xgboost-gpu")


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"data": {"feature_sets": ["tiny"]}}, ConfigError, "tiny"),
        ({"data": {"feature_groups": ["wealth"]}}, ConfigError, "wealth"),
    ],
)
def test_what_the_published_version_lacks_is_named(settings, kind, message) -> None:
    with pytest.raises(kind, match=message):
        published(parse_config(settings))


def test_bad_data_is_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no folder.*v5\.3"):
        read_shape(tmp_path / "nowhere", RunConfig())
    with pytest.raises(DataError, match=r"features\.json is missing"):
        read_shape(tmp_path, RunConfig())
    with pytest.raises(ConfigError, match=r"'target_joy_20' is not in the data.*target_ender_20"):
        read_shape(made, parse_config({"data": {"target": "target_joy_20"}}))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "features.json").write_bytes((made / "features.json").read_bytes())
    with pytest.raises(DataError, match=r"train\.parquet is missing"):
        read_shape(broken, RunConfig())
    (broken / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"train\.parquet is truncated or no parquet"):
        read_shape(broken, RunConfig())


def test_another_machine_has_unknown_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload, "why_no_gpu", lambda: "no driver")
    assert this_machine("auto").device == "cpu"
    assert this_machine("auto").memory < math.inf
    assert this_machine("cpu", 64) == Hardware("cpu", 64, 1, math.inf, math.inf)
    assert this_machine("cuda", gpus=4).memory == math.inf
    monkeypatch.setattr(workload, "why_no_gpu", lambda: None)
    assert this_machine("auto").device == "cuda"


def test_the_command_prints_a_plan_and_json(made: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[time]\nloop_start = 40\n[zoo]\nfold_eras = 12\nminimum_eras = 3\n")
    arguments = ["plan", str(made), "--config", str(config), "--device", "cpu"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0
    assert all(stage in printed.stdout for stage in (*STAGES, "in all"))
    answer = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert answer["seconds"] > 0
    assert CliRunner().invoke(app, ["plan", VERSION, "--device", "cuda"]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["nowhere"], DataError),
        ([VERSION, "--device", "tpu"], ConfigError),
        ([VERSION, "--config", "none.toml"], ConfigError),
    ],
)
def test_the_command_refuses_bad_input(arguments: list[str], kind: type[EravaneError]) -> None:
    found = CliRunner().invoke(app, ["plan", *arguments])
    assert isinstance(found.exception, kind)
