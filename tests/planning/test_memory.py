"""Sizes, and the plan of what a run holds."""

from __future__ import annotations

import pytest

from eravane.calendar.eras import EraIndex
from eravane.calendar.timeline import plan_timeline
from eravane.core.config import RunConfig, parse_config
from eravane.core.errors import ConfigError
from eravane.data.catalog import FeatureCatalog
from eravane.planning import memory
from eravane.planning.memory import Holding, MemoryPlan, format_size, parse_size, plan_memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GB", 16_000_000_000),
        ("16 GiB", 16 * 2**30),
        ("1.5gb", 1_500_000_000),
        ("800m", 800_000_000),
        ("512KiB", 512 * 1024),
        ("2T", 2 * 10**12),
        ("4096", 4096),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-3GB", "16 gigs", "0GB", "1e9", "16GBs"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no size"):
        parse_size(text)


def test_sizes_are_written() -> None:
    assert [format_size(size) for size in (2.34e9, 1e12, 5_100_000, 12_345)] == ["2.3 GB", "1.0 TB", "5.1 MB", "12 kB"]


def plan(
    settings: dict[str, dict[str, object]],
    *,
    rows: int = 5000,
    workers: int = 2,
    dtype: str = "int8",
    device: str = "cpu",
) -> MemoryPlan:
    config: RunConfig = parse_config(settings)
    groups = {"even": tuple(f"f{n}" for n in range(0, 800, 2)), "odd": tuple(f"f{n}" for n in range(1, 800, 2))}
    catalog = FeatureCatalog({"medium": tuple(f"f{n}" for n in range(800))}, groups, ("target",))
    index = EraIndex.from_counts(range(1, 121), [rows] * 120)
    return plan_memory(config, catalog, index, dtype, plan_timeline(config, index, 115), workers, device)


BASE: dict[str, dict[str, object]] = {
    "time": {"loop_start": 101},
    "zoo": {"fold_eras": 30, "folds": 2, "minimum_eras": 10},
    "loop": {"update": "none"},
    "gate": {"warmup": 5},
    "compute": {"memory": "6GB"},
}


def test_the_largest_matrices_are_counted_by_hand() -> None:
    """Two workers: the whole set in the loop's first training (eras 1-101) and in the newest fold."""
    timeline = plan_timeline(parse_config(BASE), EraIndex.from_counts(range(1, 121), [5000] * 120), 115)
    newest = timeline.folds[-1]
    one = 5000 * 101 * (800 * 3.2 + 50)
    other = 5000 * (newest.train_last - newest.train_first + 1) * (800 * 3.2 + 50)
    found = plan(BASE)
    assert found.of("matrices") == pytest.approx(one + other, abs=2)
    assert plan(BASE, workers=1).of("matrices") == pytest.approx(one, abs=1)
    assert found.mapped == 120 * 5000 * 800
    assert found.total == sum(holding.size for holding in found.holdings)


def test_the_level_grower_holds_no_matrix() -> None:
    """Features that are prepared on reading are copied, a byte each; others are grown on where they lie."""
    levels = {**BASE, "zoo": {**BASE["zoo"], "learner": "levels"}}
    assert plan(levels, workers=1).of("matrices") == 5000 * 101 * 50
    prepared = {**levels, "prepare": {"missing_eras": "impute"}}
    assert plan(prepared, workers=1).of("matrices") == 5000 * 101 * (800 + 50)


def test_the_level_grower_holds_what_targets_need_that_grow_together() -> None:
    """Of several targets up to eight grow at once, each with 18 bytes a row; XGBoost's grow one after the other."""
    targets = [f"target_{name}_20" for name in "abcdefghij"]
    for number, together in ((2, 2), (8, 8), (10, 8)):
        zoo = {**BASE["zoo"], "learner": "levels", "targets": targets[:number]}
        assert plan({**BASE, "zoo": zoo}, workers=1).of("matrices") == 5000 * 101 * (50 + 18 * (together - 1))
    several = plan({**BASE, "zoo": {**BASE["zoo"], "targets": targets}}, workers=1).of("matrices")
    assert several == plan(BASE, workers=1).of("matrices")


def test_matrices_on_a_gpu_take_nothing_of_the_hosts_memory() -> None:
    on_cpu, on_gpu = plan(BASE), plan(BASE, device="cuda")
    assert on_gpu.total == on_cpu.total - on_cpu.of("matrices")
    assert on_gpu.of("matrices") == 0


def test_every_nth_era_windows_and_dtypes_count() -> None:
    full = plan(BASE, workers=1).of("matrices")
    every = plan({**BASE, "zoo": {**BASE["zoo"], "every": 4}}, workers=1).of("matrices")
    window = plan({**BASE, "zoo": {**BASE["zoo"], "window": 20}}, workers=1).of("matrices")
    assert every == pytest.approx(full / 4, rel=0.01)
    assert window == pytest.approx(full * 20 / 101, rel=0.01)
    floats = plan(BASE, workers=1, dtype="float32").of("matrices")
    assert floats == pytest.approx(5000 * 101 * (800 * (2.2 + 8) + 50), abs=1)
    missing = plan({**BASE, "prepare": {"impute": "none"}}, workers=1, dtype="float32").of("matrices")
    assert missing == pytest.approx(5000 * 101 * (800 * (5.2 + 8) + 50), abs=1)


def test_a_plan_that_does_not_fit_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    plan(BASE).require()
    tight = plan({**BASE, "compute": {"memory": "1GB"}})
    with pytest.raises(ConfigError, match=r"training matrices.*compute\.memory allows 1\.0 GB.*compute\.workers"):
        tight.require()
    monkeypatch.setattr(memory, "available_memory", lambda: 10**9)
    with pytest.raises(ConfigError, match=r"this machine has 1\.0 GB free"):
        plan(BASE).require()


def test_the_lines_add_up() -> None:
    lines = MemoryPlan((Holding("process", "a", 2 * 10**9), Holding("era", "b", 10**9)), 4 * 10**9, 7 * 10**9).lines()
    assert [line[:9].strip() for line in lines] == ["2.0 GB", "1.0 GB", "3.0 GB", "7.0 GB"]
    assert "of 4.0 GB allowed" in lines[2]
