"""Order, choice and memory of an ingest."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eravane.core.errors import StoreError
from eravane.data.ingest import ingest
from eravane.data.parquet import open_parquet
from eravane.data.store import builder, matrixfile, placement, source
from eravane.data.store.store import EraStore
from tests.support.made_store import FEATURES, TARGETS, Dataset, rows


def assert_holds(store: EraStore, history: pd.DataFrame, columns: tuple[str, ...] = FEATURES) -> None:
    """The store holds exactly these rows, in this order."""
    first, last = store.index.first, store.index.last
    assert store.index.per_row().tolist() == history["era"].astype(int).tolist()
    assert store.ids(first, last).to_pylist() == list(history.index)
    np.testing.assert_array_equal(store.window(first, last).frame().values, history[list(columns)].to_numpy().T)
    for name in TARGETS:
        np.testing.assert_array_equal(store.target(name, first, last), history[name].to_numpy())


@pytest.mark.parametrize("row_groups", [7, 100, 10_000])
@pytest.mark.parametrize("floats", [False, True])
def test_any_row_order_ends_in_era_order(
    tmp_path: Path, row_groups: int, floats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eras split over distant row groups, small blocks, several segments."""
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 80)
    monkeypatch.setattr(source, "BLOCK_BYTES", 500)
    made = Dataset.make(floats=floats)
    random = np.random.default_rng(5)
    made.train = made.train.iloc[random.permutation(len(made.train))]
    made.validation = pd.concat([made.validation.iloc[100:], made.validation.iloc[:100]])
    made.row_groups = row_groups
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert_holds(store, made.history)
    assert len(store.segments) >= 5


@pytest.mark.parametrize("floats", [False, True])
def test_segments_filled_in_memory_and_in_their_files_are_the_same(
    tmp_path: Path, floats: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All in memory, none, and some of those that are filled at the same time."""
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 80)
    made, written, mapped = Dataset.make(floats=floats), [], list[int]()
    made.train = made.train.iloc[np.random.default_rng(5).permutation(len(made.train))]
    data, mmap = made.write(tmp_path / "data"), matrixfile.mmap.mmap

    def recorded(file: int, size: int) -> Any:
        mapped.extend([file] if file != -1 else [])
        return mmap(file, size)

    monkeypatch.setattr(matrixfile.mmap, "mmap", recorded)
    counts = []
    for size in (1 << 20, 1_500, 0):
        monkeypatch.setattr(builder, "HELD_BYTES", size)
        folder = tmp_path / f"store-{size}"
        ingest(data, folder)
        written.append({path.name: path.read_bytes() for path in (folder / "segments").iterdir()})
        counts.append(len(mapped))
        mapped.clear()
    assert written[0] == written[1] == written[2]
    assert counts[0] == 0 < counts[1] < counts[2]


def test_row_groups_do_not_matter(tmp_path: Path) -> None:
    made = Dataset.make()
    fingerprints = set()
    for size in (1, 31, 100_000):
        made.row_groups = size
        fingerprints.add(ingest(made.write(tmp_path / f"d{size}"), tmp_path / f"s{size}").fingerprint)
    assert len(fingerprints) == 1


def test_eras_are_compared_as_numbers(tmp_path: Path) -> None:
    made = Dataset.make()
    shift = {f"{era:04d}": f"{era + 991:04d}" for era in range(1, 15)}
    made.train["era"] = made.train["era"].map(shift)
    made.validation["era"] = made.validation["era"].map(shift)
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert store.index.labels.tolist() == list(range(992, 1006))
    assert store.data_types[:9] == ("train",) * 8 + ("validation",)
    assert_holds(store, made.history)


@settings(max_examples=25, deadline=None)
@given(
    first=st.none() | st.integers(1, 16),
    last=st.none() | st.integers(1, 16),
    every=st.integers(1, 4),
    columns=st.none() | st.lists(st.sampled_from(FEATURES), min_size=1, unique=True),
)
def test_less_can_be_chosen(
    tmp_path_factory: pytest.TempPathFactory, first: int | None, last: int | None, every: int, columns: list[str] | None
) -> None:
    made, folder = Dataset.make(), tmp_path_factory.mktemp("choice")
    start = first or 1
    wanted = [era for era in range(1, 15) if era >= start and era <= (last or 99) and (era - start) % every == 0]
    options = {"columns": columns, "first_era": first, "last_era": last, "every": every}
    data = made.write(folder / "data")
    if not wanted:
        with pytest.raises(ValueError, match=r"no era|nothing"):
            ingest(data, folder / "store", **options)  # type: ignore[arg-type]
        return
    store = ingest(data, folder / "store", **options)  # type: ignore[arg-type]
    history = made.history[made.history["era"].astype(int).isin(wanted)]
    assert_holds(store, history, tuple(columns or FEATURES))


def test_the_columns_of_a_store_do_not_change(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    ingest(data, tmp_path / "store", columns=FEATURES[:4])
    assert ingest(data, tmp_path / "store").columns == FEATURES[:4]
    with pytest.raises(StoreError, match="not the same"):
        ingest(data, tmp_path / "store", columns=FEATURES[:5])
    with pytest.raises(StoreError, match="every 2"):
        ingest(data, tmp_path / "store", every=2)


def test_progress_counts_cells_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BLOCK_BYTES", 500)
    made, steps_seen = Dataset.make(), []
    ingest(made.write(tmp_path / "data"), tmp_path / "store", progress=lambda *facts: steps_seen.append(facts))
    for name, frame in (("train.parquet", made.train), ("validation.parquet", made.validation)):
        steps = [(done, total) for file, done, total in steps_seen if file == name]
        assert [done for done, _ in steps] == sorted(done for done, _ in steps)
        assert steps[-1] == (len(frame) * len(FEATURES),) * 2


def test_integer_eras_and_absent_data_types_are_taken(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train = made.train.astype({"era": int}).drop(columns="data_type")
    made.validation = made.validation.astype({"era": int}).drop(columns="data_type")
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert store.index.labels.tolist() == list(range(1, 15))
    assert set(store.data_types) == {"train", "validation"}


def test_the_real_rows_of_2018(sample_2018: Path, tmp_path: Path) -> None:
    store = ingest(sample_2018, tmp_path / "store")
    assert store.dtype == "float32"
    assert (len(store.columns), len(store.index), store.index.rows) == (50, 186, 8231)
    for name in ("train", "validation"):
        frame = pd.read_parquet(sample_2018 / f"{name}.parquet")
        eras = frame["era"].astype(int)
        order = np.argsort(eras.to_numpy(), kind="stable")
        window = store.window(eras.min(), eras.max())
        np.testing.assert_array_equal(window.frame().values, frame[list(store.columns)].to_numpy()[order].T)
        np.testing.assert_array_equal(
            store.target("target_ken_20", eras.min(), eras.max()), frame["target_ken_20"].to_numpy()[order]
        )
    live = store.live()
    assert live is not None
    assert live.values.shape == (50, 50)


def test_a_file_has_one_reader_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking a row up for a message must not meet the thread that decodes the next block in the same file."""
    monkeypatch.setattr(source, "BLOCK_BYTES", 500)
    inside, met = threading.Lock(), []

    class Recorded:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def read_row_group(self, *arguments: Any, **options: Any) -> Any:
            met.append(not inside.acquire(blocking=False))
            time.sleep(0.1)
            inside.release()
            return self._file.read_row_group(*arguments, **options)

        def iter_batches(self, *arguments: Any, **options: Any) -> Any:
            met.append(not inside.acquire(blocking=False))
            inside.release()
            return self._file.iter_batches(*arguments, **options)

    monkeypatch.setattr(source, "open_parquet", lambda path: Recorded(open_parquet(path)))
    opened = source.Source(Dataset.make().write(tmp_path / "data") / "train.parquet")
    blocks = opened.blocks(FEATURES, opened.groups)
    next(blocks)
    assert opened.where(0).startswith("era 0001")
    blocks.close()
    assert len(met) >= 3
    assert not any(met)


def test_the_made_rows_are_what_they_are_taken_for() -> None:
    """Guards the helper: ids are unique, eras differ in size."""
    made = rows(1, 9)
    assert made.index.is_unique
    assert made["era"].value_counts().nunique() > 1
