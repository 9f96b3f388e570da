"""Features prepared once equal features prepared on every read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eravane.core.config import PrepareConfig
from eravane.core.errors import ConfigError, StoreError
from eravane.data.features import Features
from eravane.data.freeze import freeze, freeze_beside
from eravane.data.ingest import ingest
from eravane.data.store import placement
from eravane.data.store.store import EraStore
from eravane_kernels import cpu
from tests.data.store.made import FEATURES, Dataset, contents
from tests.data.store.test_append import next_week

CONFIGS = {
    "era": PrepareConfig(impute="median", outliers="winsorize", low=0.1, high=0.9),
    "window": PrepareConfig(impute="mean", outliers="std", k=1.0, bounds="window", window=3, missing_eras="impute"),
    "indicators": PrepareConfig(missing_eras="impute", impute="mode", bounds="window", window=2, indicators=True),
    "knn": PrepareConfig(impute="knn", neighbours=3, outliers="mad", k=2.0),
    "nothing": PrepareConfig(impute="none", outliers="none"),
}


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 100)


def made(*, floats: bool) -> Dataset:
    dataset = Dataset.make(floats=floats)
    dataset.train.loc[dataset.train["era"] == "0005", "feature_03"] = np.nan if floats else 2
    return dataset


@pytest.mark.parametrize("floats", [False, True], ids=["int8", "float32"])
@pytest.mark.parametrize("name", CONFIGS)
def test_frozen_features_are_those_prepared_on_read(tmp_path: Path, floats: bool, name: str) -> None:
    config = CONFIGS[name]
    raw = ingest(made(floats=floats).write(tmp_path / "data"), tmp_path / "raw")
    frozen = freeze(raw, tmp_path / "frozen", config, cpu)
    on_read, once = Features.open(raw.path, config), Features.open(frozen.path, config)
    for era in raw.index:
        one, other = on_read.era(era, FEATURES), once.era(era, FEATURES)
        assert one.columns == other.columns
        np.testing.assert_array_equal(one.values, other.values)
    live, cold = on_read.live(FEATURES), once.live(FEATURES)
    assert live.columns == cold.columns
    np.testing.assert_array_equal(live.values, cold.values)
    table, rows = once.table(FEATURES, 1, 14), on_read.table(FEATURES, 1, 14)
    assert table.column_names == rows.column_names
    for column in table.column_names:
        np.testing.assert_array_equal(table[column].to_numpy(), rows[column].to_numpy())
    np.testing.assert_array_equal(once.labels("target", 1, 14), on_read.labels("target", 1, 14))
    assert once.ids(1, 14).equals(on_read.ids(1, 14))
    frozen.verify()


def test_a_prepared_store_grows_with_the_raw_one_and_keeps_its_rows(tmp_path: Path) -> None:
    config = CONFIGS["window"]
    dataset = made(floats=True)
    raw = ingest(dataset.write(tmp_path / "data"), tmp_path / "raw")
    frozen = freeze(raw, tmp_path / "frozen", config, cpu)
    before = {
        name: file
        for name, file in contents(frozen.path).items()
        if name.startswith("segments/0") and "features" in name
    }
    later = Dataset.make(floats=True, last=16)
    later.train = dataset.train
    raw = ingest(later.write(tmp_path / "data"), tmp_path / "raw")
    grown = freeze(raw, tmp_path / "frozen", config, cpu)
    assert grown.index.last == 16
    assert before.items() <= contents(grown.path).items()
    np.testing.assert_array_equal(grown.target("target", 1, 16), raw.target("target", 1, 16))
    anew = freeze(raw, tmp_path / "anew", config, cpu)
    assert contents(anew.path) == contents(grown.path)
    grown.verify()


def test_stores_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    dataset = made(floats=True)
    raw = ingest(dataset.write(tmp_path / "data"), tmp_path / "raw")
    frozen = freeze(raw, tmp_path / "frozen", CONFIGS["era"], cpu)
    with pytest.raises(StoreError, match=r"another \[prepare\]"):
        freeze(raw, tmp_path / "frozen", CONFIGS["window"], cpu)
    with pytest.raises(StoreError, match="prepared already"):
        freeze(frozen, tmp_path / "twice", CONFIGS["era"], cpu)
    with pytest.raises(StoreError, match="is a raw store"):
        freeze(raw, tmp_path / "raw", CONFIGS["era"], cpu)
    with pytest.raises(StoreError, match="holds prepared features"):
        ingest(tmp_path / "data", tmp_path / "frozen")
    dataset.train.iloc[5, 2 + 4] = 0.25
    other = ingest(dataset.write(tmp_path / "data2"), tmp_path / "other")
    with pytest.raises(StoreError, match="other data"):
        freeze(other, tmp_path / "frozen", CONFIGS["era"], cpu)
    with pytest.raises(ConfigError, match=r"another \[prepare\]"):
        Features.open(tmp_path / "frozen", replace(CONFIGS["era"], low=0.2))
    assert EraStore.open(tmp_path / "frozen").fingerprint == frozen.fingerprint


def test_labels_and_ids_are_shared_with_the_raw_store(tmp_path: Path) -> None:
    raw = ingest(made(floats=False).write(tmp_path / "data"), tmp_path / "raw")
    frozen = freeze(raw, tmp_path / "frozen", CONFIGS["window"], cpu)
    for one, other in zip(raw.segments, frozen.segments, strict=True):
        assert one.labels.path.stat().st_ino == other.labels.path.stat().st_ino
    later = next_week(made(floats=False))
    later.train = made(floats=False).train
    ingest(later.write(tmp_path / "data"), tmp_path / "raw")
    frozen.verify()


def test_values_lie_beside_the_raw_store_and_everything_else_in_it(tmp_path: Path) -> None:
    config = replace(CONFIGS["indicators"], frozen=True)
    dataset = made(floats=False)
    raw = ingest(dataset.write(tmp_path / "data"), tmp_path / "raw")
    with pytest.raises(StoreError, match="no store"):
        Features.open(raw.path, config)
    assert freeze_beside(raw, config) is not None
    on_read, beside = Features.open(raw.path, CONFIGS["indicators"]), Features.open(raw.path, config)
    assert beside.store.fingerprint == raw.fingerprint
    for era in raw.index:
        np.testing.assert_array_equal(beside.raw(era), on_read.raw(era))
        np.testing.assert_array_equal(beside.era(era, FEATURES).values, on_read.era(era, FEATURES).values)
    np.testing.assert_array_equal(beside.live_rows().values, on_read.live_rows().values)
    np.testing.assert_array_equal(beside.live(FEATURES[2:5]).values, on_read.live(FEATURES[2:5]).values)
    later = next_week(dataset)
    later.train = dataset.train
    raw = ingest(later.write(tmp_path / "data"), tmp_path / "raw")
    with pytest.raises(StoreError, match=r"is behind .*raw"):
        Features.open(raw.path, config)
    freeze_beside(raw, config)
    assert Features.open(raw.path, config).eras(1, 99) == list(raw.index)


def test_prepared_features_of_other_data_are_made_anew(tmp_path: Path) -> None:
    config = replace(CONFIGS["era"], frozen=True)
    dataset = made(floats=True)
    freeze_beside(ingest(dataset.write(tmp_path / "data"), tmp_path / "raw"), config)
    shutil.rmtree(tmp_path / "raw")
    dataset.train.iloc[5, 2 + 4] = 0.25
    raw = ingest(dataset.write(tmp_path / "data"), tmp_path / "raw")
    freeze_beside(raw, config)
    np.testing.assert_array_equal(
        Features.open(raw.path, config).era(1, FEATURES).values,
        Features.open(raw.path, CONFIGS["era"]).era(1, FEATURES).values,
    )


def test_nothing_is_frozen_where_nothing_would_change(tmp_path: Path) -> None:
    raw = ingest(made(floats=False).write(tmp_path / "data"), tmp_path / "raw")
    assert freeze_beside(raw, PrepareConfig(frozen=True)) is None
    assert freeze_beside(raw, CONFIGS["era"]) is None
    assert freeze_beside(freeze(raw, tmp_path / "own", CONFIGS["era"], cpu), CONFIGS["era"]) is None
    assert {path.name for path in tmp_path.iterdir()} == {"data", "raw", "own"}
    assert Features.open(raw.path, PrepareConfig(frozen=True)).raw(3).shape[0] == len(FEATURES)
