"""Ingest on a GPU: cuDF's reader is a double over PyArrow, its kernel emulated; stores and refusals are the CPU's."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from eravane.backend.protocol import Decode
from eravane.core.errors import ChangedDataError, DataError, DeviceError, OutOfDeviceMemoryError
from eravane.data.ingest import ingest
from eravane.data.store import builder, placement, source
from tests.support import device_double as double
from tests.support.emulator import compiler_missing
from tests.support.made_store import FEATURES, Dataset, contents, next_week

Change = Callable[[Dataset], object]


@pytest.fixture(params=["double", pytest.param("gpu", marks=pytest.mark.gpu)])
def decode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Decode]:
    """The decoder of the GPU; segments and blocks so small that there are many of each."""
    monkeypatch.setattr(placement, "SEGMENT_ROWS", 100)
    monkeypatch.setattr(source, "DEVICE_BLOCK_BYTES", 700)
    if request.param == "gpu":
        pytest.importorskip("pylibcudf", reason="needs pylibcudf")
        yield importlib.import_module("eravane.backend.cuda").CudaBackend("none", str).decoder()
        return
    if compiler_missing():
        pytest.skip(compiler_missing())
    with double.installed(chunk_rows=37):
        yield importlib.import_module("eravane.backend.cuda").CudaBackend("none", str).decoder()


def _shuffled(made: Dataset) -> None:
    random = np.random.default_rng(0)
    made.train = made.train.iloc[random.permutation(len(made.train))]
    made.validation = made.validation.iloc[random.permutation(len(made.validation))]


def _missing(made: Dataset) -> None:
    """Missing numbers, NaN with bits of their own, double precision, subnormal and rounded ones."""
    column = made.train["feature_02"].astype(np.float64).to_numpy().copy()
    column[:4] = [1e-40, -1e-46, 1 + 2**-24, np.nan]
    column[4:5].view(np.uint64)[:] = 0xFFF4_5678_9ABC_DEF0
    made.train = made.train.assign(feature_02=column)
    made.validation = made.validation.assign(
        feature_03=made.validation["feature_03"].mask(made.validation.index < "n4")
    )


def _others(made: Dataset) -> None:
    """Levels of other types, which Arrow decodes."""
    made.train = made.train.astype({"feature_05": np.int16, "feature_06": np.float64, "target": np.float64})


STORES: dict[str, tuple[Change, bool, dict[str, int]]] = {
    "levels": (lambda made: None, False, {}),
    "floats": (lambda made: None, True, {}),
    "eras in no order": (_shuffled, False, {}),
    "every third era": (_shuffled, False, {"every": 3, "first_era": 2}),
    "missing numbers": (_missing, True, {}),
    "other types": (_others, False, {}),
}


@pytest.mark.parametrize("what", STORES)
def test_the_store_has_the_same_bytes(decode: Decode, tmp_path: Path, what: str) -> None:
    change, floats, options = STORES[what]
    made, by_arrow = Dataset.make(floats=floats), []
    change(made)
    data, done = made.write(tmp_path / "data"), []

    def counted(path: Path, group: int, names: Any, *given: Any) -> Any:
        decoded = decode(path, group, names, *given)
        (by_arrow if decoded is None else done).extend((path.name, name) for name in names)
        return decoded

    ours = ingest(data, tmp_path / "device", decode=counted, **options)  # type: ignore[arg-type]
    theirs = ingest(data, tmp_path / "host", **options)  # type: ignore[arg-type]
    assert contents(ours.path) == contents(theirs.path)
    assert {name for name, _ in done} == {"train.parquet", "validation.parquet", "live.parquet"}
    if what != "other types":
        assert by_arrow == []
        wanted = {("train.parquet", name) for name in (*FEATURES, "target")}
        assert wanted <= set(done)
    else:
        assert 0 < len(set(by_arrow)) < len(set(done))


def test_the_device_is_not_asked_for_row_groups_without_rows(decode: Decode, tmp_path: Path) -> None:
    """Their columns have no memory there."""
    data, asked = Dataset.make().write(tmp_path / "data"), set[int]()
    whole = pq.read_table(data / "train.parquet")
    with pq.ParquetWriter(data / "train.parquet", whole.schema) as writer:
        for part in (whole[:0], whole[:100], whole[:0], whole[100:], whole[:0]):
            writer.write_table(part, row_group_size=100)
    metadata = pq.ParquetFile(data / "train.parquet").metadata
    filled = {number for number in range(metadata.num_row_groups) if metadata.row_group(number).num_rows}
    assert len(filled) < metadata.num_row_groups

    def noted(path: Path, group: int, *given: Any) -> Any:
        if path.name == "train.parquet":
            asked.add(group)
        return decode(path, group, *given)

    ours, theirs = ingest(data, tmp_path / "device", decode=noted), ingest(data, tmp_path / "host")
    assert contents(ours.path) == contents(theirs.path)
    assert asked == filled


def test_new_weeks_and_corrected_labels_end_in_the_same_bytes(decode: Decode, tmp_path: Path) -> None:
    made = Dataset.make()
    data, stores = made.write(tmp_path / "data"), {"device": decode, "host": None}
    for name, by in stores.items():
        ingest(data, tmp_path / name, decode=by)
    later = next_week(made)
    later.validation.iloc[3, later.validation.columns.get_loc("target")] = 0.25
    later.write(tmp_path / "data")
    reports = [ingest(data, tmp_path / name, decode=by).report for name, by in stores.items()]
    assert reports[0] == reports[1]
    assert reports[0] is not None
    assert reports[0].eras_added == (15, 16)
    assert reports[0].labels_corrected == {"target": 1}
    assert contents(tmp_path / "device") == contents(tmp_path / "host")


def test_levels_that_the_device_has_checked_are_not_checked_again(
    decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(builder, "first_level_fault", lambda levels_CN: asked.append(levels_CN.size))
    made = Dataset.make()
    data = made.write(tmp_path / "data")
    ingest(data, tmp_path / "device", decode=decode)
    assert asked == []
    ingest(data, tmp_path / "host")
    assert asked == []  # rows in order are checked while they are copied
    made.train = made.train.sample(frac=1, random_state=0)
    ingest(made.write(tmp_path / "data"), tmp_path / "shuffled")
    assert asked != []


def _at(made: Dataset, name: str, column: str, rows: tuple[int, ...], value: object, kind: object = None) -> None:
    frame = getattr(made, name)
    values = frame[column].astype(kind).to_numpy(dtype=object) if kind == "Int8" else frame[column].astype(kind or "f8")
    values = np.array(values, dtype=object)
    values[list(rows)] = value
    setattr(made, name, frame.assign(**{column: pd.array(values, dtype=kind or np.float64)}))


REFUSED: dict[str, tuple[Change, str, bool]] = {
    "a null among levels": (lambda made: _at(made, "train", "feature_05", (77, 12), pd.NA, "Int8"), "no value", False),
    "a fraction among levels": (lambda made: _at(made, "train", "feature_05", (77,), 1.5), "no level", False),
    "a NaN among levels": (lambda made: _at(made, "train", "feature_05", (77,), np.nan), "no (level|value)", False),
    "a level of 9": (lambda made: _at(made, "train", "feature_05", (90, 40), 9, np.int8), "outside 0..4", False),
    "a level of -1": (lambda made: _at(made, "validation", "feature_11", (5,), -1, np.int8), "outside 0..4", False),
    "two faults": (
        lambda made: (
            _at(made, "train", "feature_02", (60,), 7, np.int8),
            _at(made, "train", "feature_03", (150,), pd.NA, "Int8"),
        ),
        "feature_0",
        False,
    ),
    "an infinity": (lambda made: _at(made, "train", "feature_02", (33,), np.inf, np.float32), "not finite", True),
    "an infinity in float32 alone": (lambda made: _at(made, "train", "feature_02", (33,), 1e300), "not finite", True),
    "an infinite label": (lambda made: _at(made, "train", "target", (3,), -np.inf, np.float32), "not finite", False),
    "text": (lambda made: made.train.__setitem__("feature_01", "high"), "string", False),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("order", ["eras in order", "eras in no order"])
def test_what_the_cpu_refuses_is_refused_in_the_same_words(
    decode: Decode, tmp_path: Path, what: str, order: str
) -> None:
    change, words, floats = REFUSED[what]
    made, messages = Dataset.make(floats=floats), []
    change(made)
    if order == "eras in no order":
        _shuffled(made)
    data = made.write(tmp_path / "data")
    for name, by in {"device": decode, "host": None}.items():
        with pytest.raises(DataError, match=words) as refused:
            ingest(data, tmp_path / name, decode=by)
        messages.append(str(refused.value))
        assert not (tmp_path / name).exists()
    assert messages[0] == messages[1]


def test_an_old_era_that_changed_is_refused_in_the_same_words(decode: Decode, tmp_path: Path) -> None:
    made, messages = Dataset.make(), []
    _shuffled(made)
    data = made.write(tmp_path / "data")
    for name in ("device", "host"):
        ingest(data, tmp_path / name)
    made.train = made.train.assign(feature_04=(made.train["feature_04"] + 1) % 5)
    made.write(tmp_path / "data")
    for name, by in {"device": decode, "host": None}.items():
        with pytest.raises(ChangedDataError, match="an old era was changed") as refused:
            ingest(data, tmp_path / name, decode=by)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (RuntimeError("CUDF failure"), DeviceError, r"row group 0 of .*'target' to .* by libcudf \(CUDF failure\)"),
        (MemoryError("std::bad_alloc"), OutOfDeviceMemoryError, r"row group 0 of .*train.parquet.* did not fit"),
    ],
)
def test_a_reader_that_fails_is_named_unless_the_file_is_at_fault(
    decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type, words: str
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("pylibcudf").io.parquet, "ChunkedParquetReader", failing)
    data = Dataset.make().write(tmp_path / "data")
    with pytest.raises(kind, match=words):
        ingest(data, tmp_path / "store", decode=decode)
    _damage(data / "train.parquet")
    messages = []
    for by in (decode, None):
        with pytest.raises(DataError) as refused:
            ingest(data, tmp_path / "store", decode=by)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]
    assert "cannot be read" in messages[0]


def _damage(path: Path) -> None:
    """Overwrite the pages of the column that is read first."""
    group = pq.ParquetFile(path).metadata.row_group(0)
    column = next(
        group.column(number) for number in range(group.num_columns) if group.column(number).path_in_schema == "target"
    )
    begin = column.dictionary_page_offset or column.data_page_offset
    whole = bytearray(path.read_bytes())
    whole[begin : begin + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(bytes(whole))
