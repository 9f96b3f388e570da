"""A fault of the files is named with file, column, era and id, and nothing is left behind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eravane.core.errors import DataError, StoreError
from eravane.data.ingest import ingest
from eravane.data.store.site import writing
from eravane.data.store.store import EraStore
from tests.support.made_store import FEATURES, Dataset, contents

Change = Callable[[Dataset], None]


def refused(data: Path, tmp_path: Path, *words: str, **options: object) -> None:
    """Ingest into a new store fails with every word in its message, and the store's folder is not there afterwards."""
    with pytest.raises(DataError) as caught:
        ingest(data, tmp_path / "store", **options)  # type: ignore[arg-type]
    message = str(caught.value)
    for word in words:
        assert re.search(word, message), message
    assert not (tmp_path / "store").exists()


def at(frame: pd.DataFrame, position: int) -> str:
    return str(frame.index[position])


@pytest.mark.parametrize("value", [5, -1, 127])
def test_a_level_outside_0_to_4(tmp_path: Path, value: int) -> None:
    made = Dataset.make()
    made.validation.iloc[40, 2 + 7] = value
    row = made.validation.iloc[40]
    refused(
        made.write(tmp_path / "data"),
        tmp_path,
        "validation.parquet",
        "feature_07",
        row["era"],
        at(made.validation, 40),
        f"value {value} is outside 0..4",
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (lambda column: column.astype(np.float32) + np.where(np.arange(len(column)) == 77, 0.5, 0), "no level"),
        (lambda column: column.astype(np.float64).where(np.arange(len(column)) != 77), "no level|no value"),
        (lambda column: column.astype(np.int64) + np.where(np.arange(len(column)) == 77, 300, 0), "no level"),
        (
            lambda column: column.astype(np.uint8) + np.where(np.arange(len(column)) == 77, 200, 0).astype("u1"),
            "no level",
        ),
        (lambda column: column.astype("Int8").where(np.arange(len(column)) != 77), "no value"),
    ],
    ids=["fraction", "nan", "int64", "uint8", "null"],
)
def test_an_integer_feature_that_holds_something_else(
    tmp_path: Path, values: Callable[[pd.Series], pd.Series], problem: str
) -> None:
    made = Dataset.make()
    made.train["feature_05"] = values(made.train["feature_05"])
    row = made.train.iloc[77]
    refused(
        made.write(tmp_path / "data"), tmp_path, "train.parquet", "feature_05", row["era"], at(made.train, 77), problem
    )


@pytest.mark.parametrize("kind", ["int16", "int64", "float32", "float64", "bool"])
def test_levels_of_another_type_are_taken(tmp_path: Path, kind: str) -> None:
    made = Dataset.make()
    wanted = made.train["feature_05"].to_numpy() if kind != "bool" else made.train["feature_05"].to_numpy() > 2
    made.train["feature_05"] = wanted.astype(kind)
    store = ingest(made.write(tmp_path / "data"), tmp_path / "store")
    assert store.dtype == "int8"
    np.testing.assert_array_equal(store.window(1, 8, ["feature_05"]).frame().values[0], wanted)


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e300])
def test_an_infinite_float(tmp_path: Path, value: float) -> None:
    made = Dataset.make(floats=True)
    made.train["feature_02"] = made.train["feature_02"].astype(np.float64)
    made.train.iloc[33, 2 + 2] = value
    refused(
        made.write(tmp_path / "data"),
        tmp_path,
        "train.parquet",
        "feature_02",
        made.train.iloc[33]["era"],
        at(made.train, 33),
        "not finite",
    )


def test_an_infinite_label(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train.iloc[3, made.train.columns.get_loc("target")] = np.inf
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet", "'target'", at(made.train, 3), "not finite")


def test_a_feature_that_is_no_number(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train["feature_01"] = "high"
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet", "feature_01", "string")


def _within_an_era(made: Dataset) -> None:
    made.train.index = pd.Index([*made.train.index[:12], made.train.index[3], *made.train.index[13:]], name="id")


def _in_another_era(made: Dataset) -> None:
    made.train.index = pd.Index([*made.train.index[:-1], made.train.index[3]], name="id")


def _in_another_file(made: Dataset) -> None:
    made.validation.index = pd.Index([*made.validation.index[:-1], made.train.index[3]], name="id")


@pytest.mark.parametrize("change", [_within_an_era, _in_another_era, _in_another_file])
def test_an_id_that_occurs_twice(tmp_path: Path, change: Change) -> None:
    made = Dataset.make()
    twice = at(made.train, 3)
    change(made)
    where = "validation" if change is _in_another_file else "train"
    refused(
        made.write(tmp_path / "data"), tmp_path, f"{where}.parquet", twice, "twice", "first in train.parquet, era 0001"
    )


@pytest.mark.parametrize(
    ("name", "column", "words"),
    [
        ("train", "era", ("train.parquet", "no column 'era'")),
        ("validation", "id", ("validation.parquet", "no column 'id'")),
        ("validation", "feature_04", ("validation.parquet lacks 1 feature columns", "feature_04")),
        ("train", "feature_04", ("train.parquet lacks 1 features.json feature columns", "feature_04")),
        ("live", "feature_04", ("live.parquet", "feature_04")),
        ("validation", "target_ender_60", ("validation.parquet lacks 1 target columns", "target_ender_60")),
    ],
)
def test_a_column_that_is_missing(tmp_path: Path, name: str, column: str, words: tuple[str, ...]) -> None:
    made = Dataset.make()
    frame = getattr(made, name)
    setattr(made, name, frame.reset_index(drop=True) if column == "id" else frame.drop(columns=column))
    refused(made.write(tmp_path / "data"), tmp_path, *words)


def test_a_feature_that_features_json_does_not_name(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train["feature_new"] = np.int8(0)
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet", "feature_new", "versions")
    assert ingest(tmp_path / "data", tmp_path / "store", columns=FEATURES).columns == FEATURES


def test_a_feature_that_features_json_invents(tmp_path: Path) -> None:
    made = Dataset.make()
    made.listed = (*FEATURES, "feature_unknown")
    refused(made.write(tmp_path / "data"), tmp_path, "feature_unknown")
    refused(tmp_path / "data", tmp_path, "feature_unknown", columns=["feature_01", "feature_unknown"])


def test_nan_literals_in_features_json_are_read(tmp_path: Path) -> None:
    made = Dataset.make()
    made.extra = {"feature_stats": {"feature_00": {"legacy_uniqueness": float("nan")}}}
    assert "NaN" in (made.write(tmp_path / "data") / "features.json").read_text()
    assert len(ingest(tmp_path / "data", tmp_path / "store").columns) == len(FEATURES)


@pytest.mark.parametrize(
    ("label", "words"), [("X", "live.parquet may hold"), ("era5", "not a number"), (None, "empty")]
)
def test_an_era_that_is_no_number(tmp_path: Path, label: str | None, words: str) -> None:
    made = Dataset.make()
    made.train.iloc[50, 0] = label
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet", words)


def test_live_rows_of_a_numbered_era(tmp_path: Path) -> None:
    made = Dataset.make()
    assert made.live is not None
    made.live.iloc[4, 0] = "0015"
    refused(made.write(tmp_path / "data"), tmp_path, "live.parquet", "'0015'", "era 'X'")


def test_a_live_id_that_occurs_twice(tmp_path: Path) -> None:
    made = Dataset.make()
    assert made.live is not None
    made.live.index = pd.Index([*made.live.index[:-1], made.live.index[2]], name="id")
    refused(made.write(tmp_path / "data"), tmp_path, "live.parquet", at(made.live, 2), "twice, first in row 2")


def test_a_live_id_that_is_in_history(tmp_path: Path) -> None:
    made = Dataset.make()
    assert made.live is not None
    made.live.index = pd.Index([*made.live.index[:-1], made.train.index[4]], name="id")
    refused(made.write(tmp_path / "data"), tmp_path, "live.parquet", at(made.train, 4), "the id is in history, too")


def test_one_live_row(tmp_path: Path) -> None:
    made = Dataset.make()
    assert made.live is not None
    made.live = made.live.iloc[:1]
    refused(made.write(tmp_path / "data"), tmp_path, "live.parquet has one row", "fetch the whole file")


def test_ids_of_numbers_are_refused_and_an_index_without_a_name_is_read(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train.index = pd.Index(range(len(made.train)), name="id")
    made.train = made.train.reset_index()
    refused(made.write(tmp_path / "numbers"), tmp_path, "train.parquet: column 'id' is int64; ids are text")
    made = Dataset.make()
    named = ingest(made.write(tmp_path / "named"), tmp_path / "a").fingerprint
    made.train, made.validation = made.train.rename_axis(None), made.validation.rename_axis(None)
    assert ingest(made.write(tmp_path / "unnamed"), tmp_path / "b").fingerprint == named
    made.train = made.train.reset_index(drop=True)
    refused(made.write(tmp_path / "lost"), tmp_path, "train.parquet .* pandas kept only a numbered index")


@pytest.mark.parametrize("era", ["1000000000000", "era1", "-1", "\u0661\u0662", "1e3"])
def test_an_era_that_is_no_week(tmp_path: Path, era: str) -> None:
    made = Dataset.make()
    made.train.loc[made.train.index[3], "era"] = era
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet: era .* is not a number such as '0001'")


def test_files_older_than_the_store_leave_it_as_it_is(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "new"), tmp_path / "store")
    before = contents(tmp_path / "store")
    made.validation = made.validation[made.validation["era"] < "0013"]
    with pytest.raises(DataError, match=r"ends with era 0012, and .* holds era 0014 already: these files are older"):
        ingest(made.write(tmp_path / "old"), tmp_path / "store")
    assert contents(tmp_path / "store") == before


def test_a_file_that_another_of_its_size_replaces_is_noticed(tmp_path: Path) -> None:
    """In the middle of the reading, by a rename, as downloads end."""
    data = Dataset.make().write(tmp_path / "data")
    swapped = list[str]()

    def swap(name: str, done: int, total: int) -> None:
        path = data / "validation.parquet"
        if not swapped:
            swapped.append(name)
            (data / "other").write_bytes(path.read_bytes())
            (data / "other").replace(path)

    refused(data, tmp_path, "validation.parquet changed while it was read", progress=swap)
    assert swapped


def test_an_id_that_is_empty(tmp_path: Path) -> None:
    made = Dataset.make()
    made.train.index = pd.Index([*made.train.index[:9], "", *made.train.index[10:]], name="id")
    refused(made.write(tmp_path / "data"), tmp_path, "train.parquet", "row 9: there is no id")


def test_an_era_in_two_files_or_with_two_data_types(tmp_path: Path) -> None:
    made = Dataset.make()
    made.validation.loc[made.validation["era"] == "0009", "era"] = "0008"
    refused(made.write(tmp_path / "a"), tmp_path, "era 0008 is in train.parquet and in .*validation.parquet")
    made = Dataset.make()
    made.validation.iloc[5, 1] = "test"
    refused(made.write(tmp_path / "b"), tmp_path, "validation.parquet", "0009", "'test'", "'validation'")


@pytest.mark.parametrize("name", ["train", "validation", "live"])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.99])
def test_a_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    data = Dataset.make().write(tmp_path / "data")
    path = data / f"{name}.parquet"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(data, tmp_path, f"{name}.parquet", "truncated")


def test_a_page_that_cannot_be_decoded(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    path = data / "train.parquet"
    chunk = pq.ParquetFile(path).metadata.row_group(1).column(2 + 4)
    assert chunk.path_in_schema == "feature_04"
    content = bytearray(path.read_bytes())
    start = chunk.dictionary_page_offset
    content[start : start + 20] = b"\xff" * 20
    path.write_bytes(content)
    refused(data, tmp_path, "train.parquet", "row group 1", "feature_04", "cannot be read")


@pytest.mark.parametrize("name", ["train.parquet", "validation.parquet", "features.json"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    data = Dataset.make().write(tmp_path / "data")
    (data / name).unlink()
    refused(data, tmp_path, name, "missing")


def test_no_such_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", tmp_path, "no folder", "nowhere")


def test_no_era_that_was_asked_for(tmp_path: Path) -> None:
    refused(Dataset.make().write(tmp_path / "data"), tmp_path, "no era from 0500 to the newest", first_era=500)


def test_bad_input_leaves_an_existing_store_as_it_was(tmp_path: Path) -> None:
    made = Dataset.make()
    ingest(made.write(tmp_path / "data"), tmp_path / "store")
    before = contents(tmp_path / "store")
    made.validation = pd.concat([made.validation, Dataset.make(last=16).validation.query("era > '0014'")])
    made.validation.iloc[-1, 2 + 7] = 9
    with pytest.raises(DataError, match=r"feature_07.*outside"):
        ingest(made.write(tmp_path / "data"), tmp_path / "store")
    after = contents(tmp_path / "store")
    assert after == before


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    with pytest.raises(StoreError, match=r"features\.json|not a store"):
        ingest(data, data)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        ingest(data, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno
    import os

    data = Dataset.make().write(tmp_path / "data")
    real = os.posix_fallocate
    calls = iter(range(100))

    def full(descriptor: int, offset: int, size: int) -> None:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, offset, size)

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError, match=r"No space left.*free some space and run again to resume"):
            ingest(data, tmp_path / "store")
    with pytest.raises(StoreError, match="unfinished"):
        EraStore.open(tmp_path / "store")
    ingest(data, tmp_path / "store")
    ingest(data, tmp_path / "other")
    assert contents(tmp_path / "store") == contents(tmp_path / "other")


def test_two_writers_are_kept_apart(tmp_path: Path) -> None:
    from eravane.core.files import exclusive

    data = Dataset.make().write(tmp_path / "data")
    ingest(data, tmp_path / "store")
    with exclusive(tmp_path / "store"), pytest.raises(StoreError, match="another process"):
        ingest(data, tmp_path / "store")


def test_a_writer_that_waited_for_one_with_bad_data_writes_a_folder_of_its_own(tmp_path: Path) -> None:
    data, store, other = Dataset.make().write(tmp_path / "data"), tmp_path / "store", ExitStack()
    other.enter_context(writing(store))

    def ends(_: str) -> None:
        with pytest.raises(DataError), other:
            raise DataError("bad")

    with pytest.raises(DataError), writing(store, ends):
        raise DataError("bad, too")
    assert not store.exists()
    other.enter_context(writing(store))
    ingest(data, store, wait=ends)
    EraStore.open(store).verify()


def test_optional_columns_without_nulls_are_taken(tmp_path: Path) -> None:
    """Parquet columns declared optional (as pandas writes them) and required ones give the same store."""
    made = Dataset.make()
    data = made.write(tmp_path / "data")
    ingest(data, tmp_path / "optional")
    for name in ("train", "validation"):
        table = pq.read_table(data / f"{name}.parquet")
        schema = pa.schema(
            [field.with_nullable(not field.name.startswith("feature")) for field in table.schema], table.schema.metadata
        )
        pq.write_table(table.cast(schema), data / f"{name}.parquet", row_group_size=33)
    assert not pq.read_schema(data / "train.parquet").field("feature_00").nullable
    ingest(data, tmp_path / "required")
    one, other = contents(tmp_path / "optional"), contents(tmp_path / "required")
    assert {name for name in one if one[name] != other[name]} == {"manifest.json"}
    assert (
        json.loads(one["manifest.json"])["store"]["segments"] == json.loads(other["manifest.json"])["store"]["segments"]
    )


def test_a_link_to_itself_in_place_of_a_file_is_not_taken_for_the_store(tmp_path: Path) -> None:
    data = Dataset.make().write(tmp_path / "data")
    (data / "live.parquet").unlink()
    (data / "live.parquet").symlink_to("live.parquet")
    with pytest.raises(StoreError, match=r"data/live\.parquet cannot be used: Too many levels of symbolic links"):
        ingest(data, tmp_path / "store")


def test_a_folder_above_the_store_that_cannot_be_made_is_named_as_the_stores(tmp_path: Path) -> None:
    """Root too may make no folder there."""
    data = Dataset.make().write(tmp_path / "data")
    with pytest.raises(
        StoreError, match=r"cannot write the store /proc/nowhere/deep/store: .*; check the path and its"
    ):
        ingest(data, Path("/proc/nowhere/deep/store"))
