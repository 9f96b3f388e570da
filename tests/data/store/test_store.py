"""What a store gives back, against the pandas frames it was made from."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.core.config import PrepareConfig
from eravane.core.errors import DataError, StoreError
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.data.store import placement, segments
from eravane.data.store.store import EraStore
from tests.support.made_store import FEATURES, TARGETS, Dataset, contents


@pytest.fixture(scope="module", params=["int8", "float32"])
def dataset(request: pytest.FixtureRequest) -> Dataset:
    return Dataset.make(floats=request.param == "float32")


@pytest.fixture(scope="module")
def store(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> EraStore:
    """The dataset in segments of about three eras."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(placement, "SEGMENT_ROWS", 100)
        return ingest(dataset.write(folder / "data"), folder / "store")


def expected(dataset: Dataset, first: int, last: int) -> pd.DataFrame:
    era = dataset.history["era"].astype(int)
    return dataset.history[(era >= first) & (era <= last)]


def test_every_value_comes_back(dataset: Dataset, store: EraStore) -> None:
    frame = store.window(1, 14).frame()
    np.testing.assert_array_equal(frame.values, dataset.history[list(FEATURES)].to_numpy().T)
    assert str(frame.values.dtype) == store.dtype == str(dataset.train[FEATURES[0]].dtype)
    assert frame.index.per_row().tolist() == dataset.history["era"].astype(int).tolist()
    assert store.ids(1, 14).to_pylist() == list(dataset.history.index)
    for name in TARGETS:
        np.testing.assert_array_equal(store.target(name, 1, 14), dataset.history[name].to_numpy())
    assert len(store.segments) > 3


def test_data_types_are_kept_per_era(store: EraStore) -> None:
    assert store.data_types == ("train",) * 8 + ("validation",) * 4 + ("test",) * 2


def test_live_rows_are_apart(dataset: Dataset, store: EraStore) -> None:
    live, given = store.live(), dataset.live
    assert live is not None
    assert given is not None
    np.testing.assert_array_equal(live.values, given[list(FEATURES)].to_numpy().T)
    assert live.ids.to_pylist() == list(given.index)
    assert live.index.labels.tolist() == [15]
    assert store.index.last == 14


@settings(max_examples=25, deadline=None)
@given(
    eras=st.tuples(st.integers(0, 16), st.integers(0, 16)),
    names=st.lists(st.sampled_from(FEATURES), min_size=1, unique=True),
)
def test_windows_equal_the_frame(dataset: Dataset, store: EraStore, eras: tuple[int, int], names: list[str]) -> None:
    first, last = eras
    rows = expected(dataset, first, last)
    window = store.window(first, last, names)
    want = rows[names].to_numpy().T
    assert window.columns == tuple(names)
    np.testing.assert_array_equal(window.frame().values, want)
    np.testing.assert_array_equal(np.concatenate([np.empty((len(names), 0)), *window.parts], axis=1), want)
    table = window.arrow()
    assert table.column_names == names
    np.testing.assert_array_equal(np.stack([column.to_numpy() for column in table.columns]), want)
    assert list(window.index) == sorted(rows["era"].astype(int).unique())
    for frame in window:
        era = rows[rows["era"].astype(int) == frame.index.first]
        np.testing.assert_array_equal(frame.values, era[names].to_numpy().T)
        assert frame.ids.to_pylist() == list(era.index)


@settings(deadline=None, max_examples=40)
@given(
    eras=st.tuples(st.integers(0, 16), st.integers(0, 16)).map(lambda pair: (min(pair), max(pair))),
    step=st.integers(1, 6),
    names=st.lists(st.sampled_from(FEATURES), unique=True),
)
def test_every_nth_era_in_one_block(
    dataset: Dataset, store: EraStore, eras: tuple[int, int], step: int, names: list[str]
) -> None:
    window = store.window(*eras, names)
    frame = expected(dataset, *eras)
    known = [f"{era:04d}" for era in list(window.index)[::step]]
    np.testing.assert_array_equal(window.every(step), frame[frame["era"].isin(known)][names].to_numpy().T)
    assert window.every(step).flags.c_contiguous
    assert window.every(step).dtype == store.dtype


def test_contiguous_columns_are_views_of_the_file(store: EraStore) -> None:
    whole = store.segments[0].values
    window = store.window(1, 2, FEATURES[3:7])
    assert np.shares_memory(window.parts[0], whole)
    assert np.shares_memory(window.era(2).values, whole)
    assert np.shares_memory(store.window(1, 2).frame().values, whole)
    assert np.shares_memory(store.window(1, 2, FEATURES[1:9:3]).parts[0], whole)
    assert not np.shares_memory(store.window(1, 2, [FEATURES[3], FEATURES[4], FEATURES[9]]).parts[0], whole)
    assert all(part.strides[1] == part.itemsize for part in window.parts)


def test_arrow_tables_share_the_files_memory(store: EraStore) -> None:
    segment = store.segments[0]
    start = segment.values.__array_interface__["data"][0]
    end = start + segment.values.shape[0] * segment.values.strides[0]
    names = [FEATURES[9], FEATURES[1]]
    table = store.window(2, 2, names).arrow()
    assert all(not field.nullable for field in table.schema)
    assert table.schema.names == names
    for column in table.columns:
        assert start <= column.chunk(0).buffers()[1].address < end
    only = store.window(2, 2).arrow([FEATURES[5]])
    assert only.column_names == [FEATURES[5]]


def test_the_files_are_ordinary_arrow(store: EraStore) -> None:
    segment = store.segments[1]
    with pa.memory_map(str(segment.features.path)) as source:
        batch = pa.ipc.open_file(source).get_batch(0)
    assert batch.schema.names == list(FEATURES)
    np.testing.assert_array_equal(np.stack([column.to_numpy() for column in batch.columns]), segment.values)


def test_views_cannot_be_written(store: EraStore) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.window(1, 1).era(1).values[0, 0] = 3


def test_unknown_columns_and_targets_are_named(store: EraStore) -> None:
    with pytest.raises(DataError, match="feature_zz"):
        store.window(1, 2, ["feature_00", "feature_zz"])
    with pytest.raises(DataError, match=r"target_no_20.*target_ender_60"):
        store.target("target_no_20", 1, 2)


@pytest.mark.parametrize("floats", [False, True])
def test_features_missing_in_whole_eras_are_known_without_reading(tmp_path: Path, floats: bool) -> None:
    made = Dataset.make(floats=floats)
    filler = np.nan if floats else 2
    made.train.loc[made.train["era"] == "0003", ["feature_02", "feature_11"]] = filler
    made.validation.loc[made.validation["era"] == "0010", "feature_05"] = filler
    made.validation.loc[made.validation["era"] == "0011", "feature_05"] = filler
    made.validation.iloc[-1, 2 + 7] = filler
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    grouped = made.history.groupby("era")[list(FEATURES)]
    want = grouped.agg(lambda column: column.isna().all() if floats else (column == 2).all()).to_numpy()
    assert want.sum() == 4
    np.testing.assert_array_equal(store.blank(), want)
    assert not any(segment.features.opened for segment in store.segments)


def test_a_rolling_window_gives_back_what_lies_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 100)
    made = Dataset.make()
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    rolling = store.roll(3, FEATURES[2:5])
    for era in range(3, 15):
        window = rolling.advance(era)
        assert list(window.index) == list(range(era - 2, era + 1))
        want = expected(made, era - 2, era)[list(FEATURES[2:5])].to_numpy().T
        np.testing.assert_array_equal(window.frame().values, want)
        behind = [segment.features.path for segment in store.segments if segment.index.last < era - 2]
        assert resident(*behind) == 0
        assert resident(window.pieces[-1].segment.features.path) > 0
    with pytest.raises(ValueError, match="forwards"):
        rolling.advance(5)


def resident(*paths: Path) -> int:
    """Kilobytes of mapped files that this process holds in memory."""
    held, inside, names = 0, False, tuple(map(str, paths))
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0] and not line.split(" ", 1)[0].endswith(":"):
            inside = line.endswith(names)
        elif inside and line.startswith("Rss:"):
            held += int(line.split()[1])
    return held


def test_opening_a_window_holds_no_memory(tmp_path: Path) -> None:
    store = ingest(Dataset.make().write(tmp_path / "data"), tmp_path / "store")
    window = store.window(1, 14, FEATURES[1:5])
    table, paths = window.arrow(), [segment.features.path for segment in store.segments]
    assert table.num_rows == window.index.rows
    assert resident(*paths) == 0
    assert window.parts[0].sum() > 0
    assert resident(paths[0]) > 0


def test_digest_depends_on_what_was_asked_for_alone(tmp_path: Path) -> None:
    one = Dataset.make()
    first = ingest(one.write(tmp_path / "a"), tmp_path / "sa")
    one.validation.loc[one.validation["era"] == "0012", "feature_03"] = 0
    one.validation.loc[one.validation["era"] == "0012", "target"] = 0.5
    other = ingest(one.write(tmp_path / "b"), tmp_path / "sb")
    assert first.fingerprint != other.fingerprint
    assert first.digest(1, 11, targets=["target"]) == other.digest(1, 11, targets=["target"])
    assert first.digest(1, 12) != other.digest(1, 12)
    assert first.digest(1, 12, FEATURES[4:]) == other.digest(1, 12, FEATURES[4:])
    assert first.digest(1, 12, FEATURES[4:], ["target"]) != other.digest(1, 12, FEATURES[4:], ["target"])
    assert first.digest(1, 12, FEATURES[4:], ["target_ender_60"]) == other.digest(
        1, 12, FEATURES[4:], ["target_ender_60"]
    )
    assert first.digest(1, 10) != first.digest(1, 11)


def test_equal_data_gives_equal_bytes(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    ingest(data, tmp_path / "one")
    ingest(data, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store in"):
        EraStore.open(tmp_path / "absent")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "building.json").write_text("{}")
    with pytest.raises(StoreError, match="unfinished"):
        EraStore.open(tmp_path / "half")


def test_a_damaged_manifest_or_file_size_is_noticed_on_opening(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    path = ingest(data, tmp_path / "store").path
    manifest = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(manifest.replace(b"feature_03", b"feature_33", 1))
    with pytest.raises(StoreError, match="checksum"):
        EraStore.open(path)
    (path / "manifest.json").write_bytes(manifest)
    labels = next((path / "segments").glob("*labels-0.arrow"))
    labels.write_bytes(labels.read_bytes()[:-8])
    with pytest.raises(StoreError, match=f"{labels.name}.* bytes instead of"):
        EraStore.open(path)
    labels.unlink()
    with pytest.raises(StoreError, match="is missing"):
        EraStore.open(path)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 14), st.integers(-1, 13), st.permutations(FEATURES), st.integers(1, 6), st.integers(1, 4))
def test_levels_are_read_where_they_lie(
    dataset: Dataset, store: EraStore, first: int, more: int, names: list[str], count: int, every: int
) -> None:
    columns, features = names[:count], Features.open(store.path, PrepareConfig())
    levels = features.levels(columns, first, first + more, every=every)
    if store.dtype != "int8":
        assert levels is None
        return
    assert levels is not None
    rows = expected(dataset, first, first + more)
    rows = rows[rows["era"].isin(rows["era"].unique()[::every])]
    np.testing.assert_array_equal(levels.matrix(), rows[columns].to_numpy().T)
    filled = Features.open(store.path, PrepareConfig(missing_eras="impute"))
    assert filled.levels(columns, first, first + more) is None


def test_threads_that_map_at_the_same_moment_keep_one_mapping(
    dataset: Dataset, store: EraStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Levels are read by address: a mapping that another one replaced would be taken from under them."""
    if store.dtype != "int8":
        pytest.skip("floats are not read by address")
    fresh, mapping = EraStore.open(store.path), segments.map_values
    together = threading.Barrier(2, timeout=60)

    def both(*given: Any) -> Any:
        found = mapping(*given)
        together.wait()
        return found

    monkeypatch.setattr(segments, "map_values", both)
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: fresh.window(1, 14).levels(), range(2))
    np.testing.assert_array_equal(one.address_SC, other.address_SC)
    np.testing.assert_array_equal(one.matrix(), dataset.history[list(FEATURES)].to_numpy().T)


def test_levels_keep_the_memory_that_they_are_read_from(dataset: Dataset, store: EraStore) -> None:
    if store.dtype != "int8":
        pytest.skip("floats are not read by address")
    window = EraStore.open(store.path).window(1, 14)
    levels = window.levels()
    mapped = [weakref.ref(piece.segment.values) for piece in window.pieces]
    for piece in window.pieces:
        piece.segment.features = piece.segment.labels
    gc.collect()
    assert all(reference() is not None for reference in mapped)
    np.testing.assert_array_equal(levels.matrix(), dataset.history[list(FEATURES)].to_numpy().T)
