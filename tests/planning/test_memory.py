"""Sizes, and the plan of what a run holds."""

from __future__ import annotations

import pytest

from eravane.calendar.eras import EraIndex
from eravane.calendar.timeline import plan_timeline
from eravane.core.config import RunConfig, parse_config
from eravane.core.errors import ConfigError
from eravane.core.memory import Limit
from eravane.data.catalog import FeatureCatalog
from eravane.learners.registry import make_learner
from eravane.planning import memory
from eravane.planning.memory import Holding, MemoryPlan, plan_memory


def plan(
    settings: dict[str, dict[str, object]],
    *,
    rows: int = 5000,
    workers: int = 2,
    dtype: str = "int8",
    device: str = "cpu",
    programs: int | None = None,
) -> MemoryPlan:
    config: RunConfig = parse_config(settings)
    groups = {"even": tuple(f"f{n}" for n in range(0, 800, 2)), "odd": tuple(f"f{n}" for n in range(1, 800, 2))}
    catalog = FeatureCatalog({"medium": tuple(f"f{n}" for n in range(800))}, groups)
    index = EraIndex.from_counts(range(1, 121), [rows] * 120)
    return plan_memory(
        config, catalog, index, dtype, plan_timeline(config, index, 115), workers, device, programs=programs
    )


BASE: dict[str, dict[str, object]] = {
    "data": {"horizon_eras": 4},
    "time": {"loop_start": 101},
    "zoo": {"learner": "xgboost", "fold_eras": 30, "folds": 2, "minimum_eras": 10},
    "loop": {"update": "none"},
    "gate": {"warmup": 5},
    "compute": {"memory": "6GB"},
}
TRAINED = 101 - 9  # labels of 4 eras, and the margin of 5 for trees


def test_the_largest_matrices_are_counted_by_hand() -> None:
    """Two workers: the whole set in the loop's first training (era 101 less the tree lag) and in the newest fold."""
    timeline = plan_timeline(parse_config(BASE), EraIndex.from_counts(range(1, 121), [5000] * 120), 115)
    newest = timeline.folds[-1]
    one = 5000 * TRAINED * (800 * 3.35 + 60)
    other = 5000 * (newest.train_last - newest.train_first + 1) * (800 * 3.35 + 60)
    found = plan(BASE)
    assert found.of("matrices") == pytest.approx(one + other, abs=2)
    assert plan(BASE, workers=1).of("matrices") == pytest.approx(one, abs=1)
    assert found.mapped == 120 * 5000 * 800
    assert found.total == sum(holding.size for holding in found.holdings)


def _planned(zoo: dict[str, object], *, dtype: str = "int8", **prepare: object) -> int:
    settings = {**BASE, "zoo": {**BASE["zoo"], **zoo}, "prepare": prepare}
    return plan(settings, workers=1, dtype=dtype).of("matrices")


@pytest.mark.parametrize("learner", ["xgboost", "levels", "lightgbm"])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(
    ("prepare", "copied", "wider"),
    [
        ({}, {"float32"}, 1),
        ({"outliers": "std"}, {"int8", "float32"}, 1),
        ({"missing_eras": "impute"}, {"int8", "float32"}, 1),
        ({"indicators": True}, {"int8", "float32"}, 2),
        ({"impute": "none", "outliers": "none"}, set(), 1),
    ],
)
def test_a_training_holds_what_its_learner_says_and_the_copy_of_a_prepared_table(
    learner: str, dtype: str, prepare: dict[str, object], copied: set[str], wider: int
) -> None:
    """The learner alone knows its memory; a table that preparation changes is a copy beside it."""
    rows, width = 5000 * TRAINED, 1 if dtype == "int8" else 4
    made, _ = make_learner(parse_config({"zoo": {"learner": learner}}).zoo, "cpu")
    missing = dtype == "float32" and prepare.get("impute") == "none"
    expected = made.bytes_needed(rows, 800 * wider, width, missing=missing)
    assert _planned({"learner": learner}, dtype=dtype, **prepare) == (
        expected + rows * 800 * wider * width * (dtype in copied)
    )


def test_every_nth_era_is_a_copy() -> None:
    rows = 5000 * -(-TRAINED // 4)  # every fourth era
    made, _ = make_learner(parse_config({"zoo": {"learner": "levels"}}).zoo, "cpu")
    assert _planned({"learner": "levels", "every": 4}) == made.bytes_needed(rows, 800, 1) + rows * 800


def test_models_of_several_targets_that_grow_together_are_held_together() -> None:
    targets = [f"target_{name}_20" for name in "abcdefghij"]
    made, _ = make_learner(parse_config({"zoo": {"learner": "levels"}}).zoo, "cpu")
    for number in (2, 8, 10):
        zoo: dict[str, object] = {"learner": "levels", "targets": targets[:number]}
        assert _planned(zoo) == made.bytes_needed(5000 * TRAINED, 800, 1, number)
    assert _planned({"targets": targets}) == _planned({})


def test_matrices_on_a_gpu_take_nothing_of_the_hosts_memory() -> None:
    on_cpu, on_gpu = plan(BASE), plan(BASE, device="cuda")
    assert on_gpu.total == on_cpu.total - on_cpu.of("matrices")
    assert on_gpu.of("matrices") == 0


@pytest.mark.parametrize(("dtype", "learner"), [("int8", "levels"), ("float32", "xgboost")])
def test_a_learner_that_is_left_open_is_planned_as_it_will_be_chosen(dtype: str, learner: str) -> None:
    assert _planned({"learner": "auto"}, dtype=dtype) == _planned({"learner": learner}, dtype=dtype)


def test_members_from_outside_are_counted_a_float_per_row_and_the_matching_of_one() -> None:
    rows = 120 * 5000
    members = {f"m{number}": f"m{number}.parquet" for number in range(99)}
    found = plan({**BASE, "zoo": {**BASE["zoo"], "members": members, "benchmarks": ["b"]}})
    assert plan(BASE).of("members") == 0
    assert found.of("members") == rows * (100 * 4 + memory.MATCHING_BYTES)
    assert found.of("predictions") > 33 * plan(BASE).of("predictions")  # of 3 cells and 100 members


@pytest.mark.parametrize("learner", ["levels", "xgboost"])
def test_a_first_run_compiles_the_kernels_that_it_needs(monkeypatch: pytest.MonkeyPatch, learner: str) -> None:
    content = {**BASE, "zoo": {**BASE["zoo"], "learner": learner, "params": {}}}
    found = {}
    for kept in ((), ("ranks",), ("ranks", "boosting")):
        monkeypatch.setattr(memory, "is_compiled", lambda module, kept=kept: module in kept)
        found[kept] = plan(content).of("process") - memory.PROCESS_BYTES
    of_all, of_levels = sum(memory.COMPILING_BYTES.values()), sum(memory.COMPILING_LEVELS_BYTES.values())
    of_levels *= learner == "levels"
    assert list(found.values()) == [of_all + of_levels, of_levels, 0]


def test_workers_of_a_local_cluster_are_programs_of_their_own() -> None:
    base = dict(BASE["compute"])
    alone, cluster = plan(BASE), plan({**BASE, "compute": {**base, "scheduler": "local"}})
    compiling = alone.of("process") - memory.PROCESS_BYTES
    assert cluster.of("process") == alone.of("process") + 2 * (memory.WORKER_BYTES + compiling)
    started = plan({**BASE, "compute": {**base, "scheduler": "tcp://127.0.0.1:8786"}}, programs=2)
    assert started.of("process") == cluster.of("process")  # a run knows the address of the cluster that it started


def test_lightgbm_holds_its_floats_beside_the_sample_for_its_bins() -> None:
    made, _ = make_learner(parse_config({"zoo": {"learner": "lightgbm"}}).zoo, "cpu")
    few, many = 100_000, 1_000_000
    assert made.bytes_needed(few, 10, 1) == few * (10 * (4 + 12) + 60)
    assert made.bytes_needed(many, 10, 1) == 10 * (many * 4 + 200_000 * 12) + many * 60


@pytest.mark.parametrize(
    ("rows", "columns", "missing", "measured"),
    [
        (40_000, 150, False, 23.99),
        (50_000, 150, False, 25.83),
        (160_000, 60, False, 13.77),
        (400_000, 40, False, 10.43),
        (50_000, 150, True, 20.61),
        (400_000, 40, True, 9.89),
    ],
)
def test_floats_are_planned_as_xgboost_was_measured_to_bin_them(
    rows: int, columns: int, missing: bool, measured: float
) -> None:
    """Bytes a cell above what was held before, tables of floats in chunks of 1,000 rows, 30 % NaN; XGBoost 3.2."""
    made, _ = make_learner(parse_config({"zoo": {"learner": "xgboost"}}).zoo, "cpu")
    assert 1.0 <= made.bytes_needed(rows, columns, 4, missing=missing) / (rows * columns * measured) <= 1.4


def test_windows_count() -> None:
    assert _planned({"window": 20}) == pytest.approx(_planned({}) * 20 / TRAINED, rel=0.01)


def test_a_plan_that_does_not_fit_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plan(BASE).require()
    tight = plan({**BASE, "compute": {"memory": "1GB"}})
    with pytest.raises(ConfigError, match=r"training matrices.*compute\.memory allows 1\.0 GB.*compute\.workers"):
        tight.require()
    monkeypatch.setattr(memory, "tightest_limit", lambda: Limit("the machine", 2 * 10**9, 10**9))
    with pytest.raises(ConfigError, match=r"the machine leaves it 1\.0 GB"):
        plan(BASE).require()


def test_the_lines_add_up() -> None:
    lines = MemoryPlan((Holding("process", "a", 2 * 10**9), Holding("era", "b", 10**9)), 4 * 10**9, 7 * 10**9).lines()
    assert [line[:9].strip() for line in lines] == ["2.0 GB", "1.0 GB", "3.0 GB", "7.0 GB"]
    assert "of 4.0 GB allowed" in lines[2]
