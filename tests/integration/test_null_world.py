"""A world in which nothing persists, with 60-day labels: what sees no label early scores zero, what does is caught.

The quick version of `python -m benchmarks horizons`, which tries every path on twenty seeds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.horizons import NULL, SETTINGS, Rows, estimator_corr, rows_of, run_corr, splitter_corr
from eravane.calendar.horizon import Horizon

SEEDS = range(3)


def null_error(eras: int) -> float:
    """Standard error of a mean CORR over consecutive eras whose labels are noise that 12 of them share.

    It holds for predictions that stay the same from era to era; for others it is smaller.
    """
    return float(np.sqrt(12 / eras / NULL.rows))


def is_zero(corr_E: np.ndarray) -> bool:
    """Whether a mean CORR is zero within two of its errors."""
    return abs(corr_E.mean()) < 2 * null_error(corr_E.size)


@pytest.fixture(scope="module")
def worlds() -> list[Rows]:
    return [rows_of(replace(NULL, seed=seed)) for seed in SEEDS]


@pytest.fixture(scope="module")
def purged(worlds: list[Rows]) -> list[np.ndarray]:
    """CORR of every era of every world under the default purge."""
    return [splitter_corr(rows) for rows in worlds]


def test_the_splitters_default_purge_sees_nothing_early(worlds: list[Rows], purged: list[np.ndarray]) -> None:
    for rows, found in zip(worlds, purged, strict=True):
        assert is_zero(found)
        np.testing.assert_array_equal(splitter_corr(rows, target="target", horizon_eras=12), found)


def test_a_planted_leak_is_caught(worlds: list[Rows]) -> None:
    for rows in worlds:
        leaking = splitter_corr(rows, purge=0)
        assert not is_zero(leaking)
        assert leaking.mean() > 0.4


def test_the_purge_of_20_day_labels_leaks(worlds: list[Rows], purged: list[np.ndarray]) -> None:
    """Every fold of three eras shares weeks with labels eight eras before; paired with the default purge."""
    gains = np.concatenate([splitter_corr(rows, purge=8) - found for rows, found in zip(worlds, purged, strict=True)])
    assert gains.mean() > 0.02
    assert not is_zero(gains)


@pytest.mark.full
def test_the_estimator_scores_zero_and_its_leak_is_caught(worlds: list[Rows]) -> None:
    found, seen = estimator_corr(worlds[0], Horizon.of_days(60))
    assert is_zero(found)
    assert abs(seen) < 2 * null_error(24)  # what its selection saw of eight folds of three eras
    leaking, early = estimator_corr(worlds[0], Horizon(1), purge=0)
    assert not is_zero(leaking)
    assert early > 2 * null_error(24)


def test_a_run_scores_zero_in_folds_and_loop_by_default_and_its_leak_is_caught(tmp_path: Path) -> None:
    world = replace(NULL, seed=4)
    series = run_corr(tmp_path, world, SETTINGS["by default"].lags)
    assert [corr_E.size for corr_E in series] == [40, 40, 36]
    assert all(map(is_zero, series))
    notes = json.loads((tmp_path / "default" / "manifest.json").read_text())["notes"]
    assert any("target = target_ender_60, 60 days: lags 14 and 17, purge 16" in note for note in notes)
    leaking = run_corr(tmp_path, world, SETTINGS["leaking"].lags)
    assert not any(map(is_zero, leaking))
    assert min(corr_E.mean() for corr_E in leaking) > 0.2
