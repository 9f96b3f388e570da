"""A new week: eras are added and labels filled; nothing that is stored changes unnoticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from eravane.core.errors import DataError
from eravane.data.ingest import ingest
from eravane.data.store import placement
from eravane.data.store.store import EraStore
from tests.support.made_store import FEATURES, TARGETS, Dataset, contents, next_week


@pytest.fixture(autouse=True)
def small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 100)


def features(path: Path) -> dict[str, bytes]:
    return {name: content for name, content in contents(path).items() if ".features." in name and "live" not in name}


def test_new_eras_and_labels_are_taken_and_nothing_else_is_rewritten(tmp_path: Path) -> None:
    made = Dataset.make()
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    before = features(store.path)
    assert store.report is not None
    assert store.report.eras_added == tuple(range(1, 15))
    later = next_week(made)
    grown = ingest(later.write(tmp_path / "data"), tmp_path / "store")
    history = later.history
    np.testing.assert_array_equal(grown.window(1, 16).frame().values, history[list(FEATURES)].to_numpy().T)
    for name in TARGETS:
        np.testing.assert_array_equal(grown.target(name, 1, 16), history[name].to_numpy())
    assert grown.ids(1, 16).to_pylist() == list(history.index)
    assert grown.data_types[-4:] == ("validation", "validation", "test", "test")
    filled = int(made.validation["target"].isna().sum())
    assert grown.report is not None
    assert grown.report.eras_added == (15, 16)
    assert grown.report.rows_added == len(history) - len(made.history)
    assert dict(grown.report.labels_filled) == dict.fromkeys(TARGETS, filled)
    assert not grown.report.labels_corrected
    assert grown.report.unchanged == ("train.parquet",)
    after = features(grown.path)
    assert before.items() <= after.items()
    live = grown.live()
    assert live is not None
    assert live.ids[0].as_py().startswith("m")
    assert live.index.first == 17
    grown.verify()
    assert len(list((tmp_path / "store" / "segments").glob("live*.ids.arrow"))) == 1


def test_an_append_leaves_every_stored_byte_of_features_alone(tmp_path: Path) -> None:
    """Bit test of the issue: inode, time stamp and content of every old feature file."""
    made = Dataset.make()
    folder = ingest(made.write(tmp_path / "data"), tmp_path / "store").path / "segments"
    old = {
        path: (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("0*.features.*")
    }
    ingest(next_week(made).write(tmp_path / "data"), tmp_path / "store")
    assert len(old) > 5
    for path, facts in old.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes()) == facts


def test_appending_gives_the_rows_of_one_ingest(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "grown")
    later = next_week(made)
    grown = ingest(later.write(tmp_path / "data"), tmp_path / "grown")
    fresh = ingest(tmp_path / "data", tmp_path / "fresh")
    assert grown.digest(1, 16, targets=TARGETS) == fresh.digest(1, 16, targets=TARGETS)
    assert grown.ids(1, 16).equals(fresh.ids(1, 16))


def test_the_same_files_again_change_nothing(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    ingest(data, tmp_path / "store")
    before = contents(tmp_path / "store")
    again = ingest(data, tmp_path / "store")
    assert contents(tmp_path / "store") == before
    assert again.report is not None
    assert again.report.unchanged == ("live.parquet", "train.parquet", "validation.parquet")
    assert not again.report.eras_added


def test_a_validation_file_alone_is_enough_for_a_week(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    later = next_week(made)
    folder = later.write(tmp_path / "week")
    (folder / "train.parquet").unlink()
    (folder / "live.parquet").unlink()
    grown = ingest(folder, tmp_path / "store")
    assert grown.index.last == 16
    assert grown.live() is None


def test_only_some_old_eras_in_the_file(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    later = next_week(made)
    later.validation = later.validation[later.validation["era"] >= "0014"]
    grown = ingest(later.write(tmp_path / "data"), tmp_path / "store")
    assert np.isnan(grown.target("target", 13, 13)).all()
    assert not np.isnan(grown.target("target", 14, 14)).any()
    np.testing.assert_array_equal(
        grown.target("target", 1, 12), made.history["target"].to_numpy()[: grown.index.span(1, 12).stop]
    )


def test_corrected_and_withdrawn_labels_are_taken_and_reported(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    column = made.validation.columns.get_loc("target")
    old = made.validation["target"].to_numpy()[:10]
    made.validation.iloc[:7, column] = np.where(old[:7] == 0.25, 0.75, 0.25)
    made.validation.iloc[7:10, column] = np.nan
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert store.report is not None
    assert dict(store.report.labels_corrected) == {"target": 7}
    assert dict(store.report.labels_withdrawn) == {"target": 3}
    assert not store.report.labels_filled
    np.testing.assert_array_equal(store.target("target", 9, 9)[:10], made.validation["target"].to_numpy()[:10])
    store.verify()


@pytest.mark.parametrize("kind", ["feature", "id", "rows", "order"])
def test_a_changed_old_era_is_noticed(tmp_path: Path, kind: str) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    before = contents(tmp_path / "store")
    later = next_week(made)
    rows = np.flatnonzero(later.validation["era"] == "0011")
    words = r"validation\.parquet.*era 0011"
    if kind == "feature":
        later.validation.iloc[rows[4], 2 + 3] = (later.validation.iloc[rows[4], 2 + 3] + 1) % 5
        words = rf"validation\.parquet.*feature_03.*era 0011, id '{later.validation.index[rows[4]]}'.*changed"
    elif kind == "id":
        names = later.validation.index.to_numpy().copy()
        names[rows[2]] = "nfedcba"
        later.validation.index = pd.Index(names, name="id")
        words += r".*nfedcba"
    elif kind == "rows":
        later.validation = later.validation.drop(index=later.validation.index[rows[0]])
    else:
        swapped = np.arange(len(later.validation))
        swapped[rows[:2]] = rows[1::-1]
        later.validation = later.validation.iloc[swapped]
    with pytest.raises(DataError, match=words):
        ingest(later.write(tmp_path / "data"), tmp_path / "store")
    assert contents(tmp_path / "store") == before


def test_a_changed_float_is_noticed_and_missing_stays_missing(tmp_path: Path) -> None:
    made = Dataset.make(floats=True)
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    later = Dataset.make(floats=True, last=15)
    ingest(later.write(tmp_path / "data"), tmp_path / "store")
    row = int(np.flatnonzero(later.train["feature_01"].isna())[0])
    later.train.iloc[row, 2 + 1] = 0.5
    with pytest.raises(DataError, match=r"train\.parquet.*feature_01.*value is 0\.5, the store has nan"):
        ingest(later.write(tmp_path / "data"), tmp_path / "store")


def test_an_older_era_that_turns_up_late_is_refused(tmp_path: Path) -> None:
    made = Dataset.make()
    complete = made.validation
    made.validation = complete[complete["era"] != "0010"]
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    made.validation = complete
    with pytest.raises(DataError, match=r"era 0010 would be added after era 0014"):
        ingest(made.write(tmp_path / "data"), tmp_path / "store")


def test_a_new_id_that_the_store_has_already(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    later = next_week(made)
    later.validation.index = pd.Index([*later.validation.index[:-1], made.train.index[5]], name="id")
    with pytest.raises(DataError, match=r"validation\.parquet.*occurs twice, first in era 0001 of the store"):
        ingest(later.write(tmp_path / "data"), tmp_path / "store")


def test_more_eras_may_be_asked_for_later(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    ingest(data, tmp_path / "store", last_era=10)
    assert EraStore.open(tmp_path / "store").index.last == 10
    grown = ingest(data, tmp_path / "store", last_era=13)
    assert grown.report is not None
    assert grown.report.eras_added == (11, 12, 13)
    assert grown.index.last == 13


def test_an_update_goes_on_from_the_first_era_of_the_store(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store", first_era=5)
    grown = ingest(next_week(made).write(tmp_path / "data"), tmp_path / "store")
    assert (grown.index.first, grown.index.last) == (5, 16)


def test_an_open_store_outlives_an_append(tmp_path: Path) -> None:
    """Readers keep what they have mapped; they see the new state when they open again."""
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    reader = EraStore.open(tmp_path / "store")
    old = reader.target("target", 13, 14).copy()
    view = reader.window(1, 14).era(9).values
    copy = view.copy()
    ingest(next_week(made).write(tmp_path / "data"), tmp_path / "store")
    np.testing.assert_array_equal(reader.target("target", 13, 14), old)
    np.testing.assert_array_equal(view, copy)
    assert not np.isnan(EraStore.open(tmp_path / "store").target("target", 13, 14)).any()
