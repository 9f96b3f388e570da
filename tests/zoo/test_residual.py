"""Residual targets against least squares within the era, what they may know, and models that are trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import ConfigError
from eravane.zoo.residual import labels_of, with_benchmark, without_benchmark
from eravane.zoo.specs import ModelSpec
from eravane.zoo.training import Finished
from tests.support.zoo_case import Case, blocks_of, configured, make_case

RESIDUAL = {"residual": 0.5, "targets": ["target_ender_20"], "seeds": 1}
CONFIG = configured(zoo=RESIDUAL)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Made data without benchmark models, which every test writes for itself."""
    found = make_case(tmp_path_factory.mktemp("residual"), zoo=RESIDUAL)
    for path in found.data.glob("*benchmark*"):
        path.unlink()
    return found


def benchmark(case: Case, folder: Path, change: int = 0) -> pd.DataFrame:
    """Benchmark predictions of eras 5 to the newest; those of one era differ where asked."""
    first, last = case.store.index.first, case.store.index.last
    eras = case.features().era_of_rows(first, last)
    values_N = np.random.default_rng(0).random(len(eras))
    values_N[eras == change] = np.random.default_rng(1).random(int((eras == change).sum()))
    ids = case.store.ids(first, last).to_pylist()
    made = pd.DataFrame({"v5_one": values_N}, index=pd.Index(ids, name="id"))[eras >= 5]
    folder.mkdir(exist_ok=True)
    made.to_parquet(folder / "train_benchmark_models.parquet")
    return made


def prepared(case: Case, folder: Path, change: int = 0) -> list[ModelSpec]:
    benchmark(case, folder, change)
    return with_benchmark(case.specs, CONFIG, folder, case.store, folder / "cache")


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_share_of_the_line_in_the_benchmark_is_taken_out_within_each_era(share: float) -> None:
    rng = np.random.default_rng(2)
    era_N = np.repeat([3, 4, 5, 6], 40)
    labels_N, base_N = rng.random(160).astype(np.float32), rng.random(160).astype(np.float32)
    labels_N[7] = base_N[60:63] = base_N[80:120] = np.nan
    base_N[120:] = 0.25
    found_N = without_benchmark(labels_N, base_N, era_N, ModelSpec("s", "g", "target", 0, (), share))
    for era in (3, 4):
        rows = (era_N == era) & np.isfinite(labels_N) & np.isfinite(base_N)
        line = np.column_stack([np.ones(rows.sum()), base_N[rows]]).astype(np.float64)
        slope = np.linalg.lstsq(line, labels_N[rows].astype(np.float64), rcond=None)[0][1]
        expected = labels_N[rows] - share * slope * (base_N[rows] - base_N[rows].mean())
        np.testing.assert_allclose(found_N[rows], expected, atol=1e-6)
        if share == 1.0:
            assert abs(np.corrcoef(found_N[rows], base_N[rows])[0, 1]) < 1e-5
    kept = np.isnan(base_N) | (era_N >= 5)
    assert np.array_equal(found_N[kept], labels_N[kept], equal_nan=True)
    assert np.isnan(found_N[7])
    assert not len(without_benchmark(labels_N[:0], base_N[:0], era_N[:0], ModelSpec("s", "g", "target", 0, (), share)))


@pytest.mark.parametrize("every", [1, 3])
def test_labels_of_an_era_rest_on_the_benchmark_of_that_era_alone(case: Case, tmp_path: Path, every: int) -> None:
    features = case.features()
    plain, changed = (
        labels_of(features, next(s for s in prepared(case, tmp_path / str(n), n) if s.residual), 2, 30, every=every)
        for n in (0, 20)
    )
    era_N = features.era_of_rows(2, 30, every=every)
    assert np.array_equal(plain[era_N != 20], changed[era_N != 20])
    assert every == 3 or not np.array_equal(plain[era_N == 20], changed[era_N == 20])
    labels_N = features.labels("target_ender_20", 2, 30, every=every)
    assert np.array_equal(plain[era_N < 5], labels_N[era_N < 5])
    assert not np.isclose(plain[era_N >= 5], labels_N[era_N >= 5]).all()
    hidden = labels_of(features, prepared(case, tmp_path)[1], 2, 30, every=every, hidden=(8,))
    assert np.isnan(hidden[era_N == 8]).all()
    assert np.array_equal(hidden[era_N != 8], plain[era_N != 8])


def test_models_on_residual_targets_stand_beside_the_plain_ones(case: Case, tmp_path: Path) -> None:
    specs = prepared(case, tmp_path)
    names = [spec.model_id for spec in specs]
    assert [name for name in names if "less" not in name] == [spec.model_id for spec in model_specs_without(case)]
    assert sum(".ender_20-less50." in name for name in names) == len(names) / 2
    zoo = case.zoo(tmp_path / "boosters")
    found = blocks_of(zoo, specs)
    plain = blocks_of(case.zoo(), [spec for spec in specs if not spec.residual])
    assert {key: found[key] for key in plain} == plain
    residual = {key: block for key, block in found.items() if key not in plain}
    assert all(block != plain[name.replace("-less50", ""), last] for (name, last), block in residual.items())
    # A later era of the benchmark is no part of what a model is named by in the cache; a training era is.
    cached = []
    for change in (54, 12):
        moved, news = prepared(case, tmp_path / str(change), change), list[Finished]()
        blocks_of(zoo, [spec for spec in moved if spec.residual], news.append)
        cached.append(all(done.cached for done in news))
    assert cached == [True, False]


def model_specs_without(case: Case) -> list[ModelSpec]:
    return [replace(spec) for spec in case.specs if not spec.residual]


def test_a_residual_without_a_benchmark_is_refused_and_none_needs_none(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"zoo\.residual needs the column .* or use 0"):
        with_benchmark(case.specs, CONFIG, tmp_path, case.store, tmp_path)
    plain = model_specs_without(case)
    assert with_benchmark(plain, configured(), tmp_path, case.store, tmp_path) == plain
