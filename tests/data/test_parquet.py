"""Files of every writer: read alike where they say the same, refused in a sentence where they are damaged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eravane.core.errors import DataError, EravaneError
from eravane.data.catalog import FeatureCatalog
from eravane.data.ingest import ingest
from eravane.data.parquet import open_parquet, read_rows, value_columns
from eravane.data.store.store import EraStore
from tests.data.chance import HAS_DUCKDB, damaged, dataset, spoiled, written

ROWS, ERAS = 60, 6
IDS = [f"n{number:015x}" for number in range(ROWS)]
ERA = [f"{1 + number // (ROWS // ERAS):04d}" for number in range(ROWS)]
VALUES = np.round(np.random.default_rng(0).random(ROWS), 3)


def plain() -> pd.DataFrame:
    return pd.DataFrame({"id": IDS, "era": ERA, "score": VALUES})


def _arrow(era: Any = None, key: Any = None, score: Any = None) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(IDS) if key is None else key,
            "era": pa.array(ERA) if era is None else era,
            "score": pa.array(VALUES) if score is None else score,
        }
    )


def _write(table: pa.Table) -> Callable[[Path], None]:
    return lambda path: pq.write_table(table, path)


def _pandas(change: Callable[[pd.DataFrame], pd.DataFrame], **options: Any) -> Callable[[Path], None]:
    return lambda path: change(plain()).to_parquet(path, **options)


SAME: dict[str, Callable[[Path], None]] = {
    "plain": _write(_arrow()),
    "large": _write(_arrow(key=pa.array(IDS, pa.large_string()), era=pa.array(ERA, pa.large_string()))),
    "dictionary": _write(_arrow(key=pa.array(IDS).dictionary_encode(), era=pa.array(ERA).dictionary_encode())),
    "binary": _write(_arrow(key=pa.array([name.encode() for name in IDS], pa.binary()))),
    "fixed binary": _write(_arrow(key=pa.array([name.encode() for name in IDS], pa.binary(16)))),
    "integer eras": _write(_arrow(era=pa.array([int(era) for era in ERA], pa.int16()))),
    "float eras": _write(_arrow(era=pa.array([float(era) for era in ERA]))),
    "binary eras": _write(_arrow(era=pa.array([era.encode() for era in ERA], pa.binary()))),
    "decimals": _write(_arrow(score=pa.array([Decimal(str(value)) for value in VALUES], pa.decimal128(10, 3)))),
    "index": _pandas(lambda frame: frame.set_index("id")),
    "unnamed index": _pandas(lambda frame: frame.set_index("id").rename_axis(None)),
    "named index": _pandas(lambda frame: frame.set_index("id").rename_axis("row")),
    "category": _pandas(lambda frame: frame.astype({"era": "category", "id": "category"})),
    "other order": _pandas(lambda frame: frame[["score", "era", "id"]].sample(frac=1, random_state=1)),
    "nullable": _pandas(lambda frame: frame.convert_dtypes()),
    "more columns": _pandas(lambda frame: frame.assign(when=pd.Timestamp("2026-01-01", tz="UTC"), many=[[1]] * ROWS)),
    "delta": lambda path: pq.write_table(
        _arrow(), path, use_dictionary=False, column_encoding={"id": "DELTA_BYTE_ARRAY", "score": "BYTE_STREAM_SPLIT"}
    ),
    "one row per group": lambda path: pq.write_table(_arrow(), path, row_group_size=1, compression="brotli"),
    "old pages": lambda path: pq.write_table(_arrow(), path, version="1.0", data_page_version="2.0"),
    "polars": lambda path: pl.from_pandas(plain()).write_parquet(path),
    "polars enum": lambda path: (
        pl.from_pandas(plain()).with_columns(pl.col("era").cast(pl.Enum(sorted(set(ERA))))).write_parquet(path)
    ),
    "polars categorical": lambda path: (
        pl.from_pandas(plain()).with_columns(pl.col("id").cast(pl.Categorical)).write_parquet(path)
    ),
}


@pytest.mark.parametrize("kind", SAME)
def test_what_says_the_same_is_read_alike(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    SAME[kind](path)
    assert "score" in value_columns(path)
    assert not {"id", "era", "row", "__index_level_0__"} & set(value_columns(path))
    wanted = pa.array([*IDS[::-1], "stranger"])
    found = read_rows(path, ["score"], eras={1, 2, 3}).aligned("score", wanted)
    kept = np.array([int(era) <= 3 for era in ERA])
    np.testing.assert_allclose(found, [*np.where(kept, VALUES, np.nan)[::-1], np.nan], atol=1e-12)


@pytest.mark.skipif(not HAS_DUCKDB, reason="needs duckdb")
def test_what_duckdb_writes_is_read_alike(tmp_path: Path) -> None:
    import duckdb

    frame, path = plain(), tmp_path / "file.parquet"
    duckdb.sql(f"COPY (SELECT id, era::UTINYINT AS era, score FROM frame) TO '{path}' (FORMAT parquet)")
    found = read_rows(path, ["score"], eras=range(1, ERAS + 1)).aligned("score", pa.array(IDS))
    np.testing.assert_allclose(found, frame["score"])


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "text values": (_write(_arrow(score=pa.array(["0.5"] * ROWS))), r"column 'score' is string, first value '0\.5'"),
    "infinite": (_write(_arrow(score=pa.array([*VALUES[:7], np.inf, *VALUES[8:]]))), r"column 'score', row 7 is inf"),
    "too large": (_write(_arrow(score=pa.array([*VALUES[:7], 1e39, *VALUES[8:]]))), r"column 'score', row 7 is 1e\+39"),
    "no text": (
        _write(_arrow(key=pa.array([b"\xff" * 16] * ROWS, pa.binary()))),
        "column 'id' holds bytes that are no UTF-8; write it as text",
    ),
    "damaged text": (
        _write(_arrow(era=pa.array([b"\xff\xfe"] * ROWS, pa.binary()).view(pa.string()))),
        "column 'era' holds bytes that are no UTF-8; write it as text",
    ),
    "date as an era": (_write(_arrow(era=pa.array(["20261128"] * ROWS))), "era '20261128' is not a number such as"),
    "twice": (_write(_arrow(key=pa.array([*IDS[:-1], IDS[3]]))), rf"id '{IDS[3]}' occurs twice, in rows 3 and 59"),
    "no id": (_write(_arrow(key=pa.array([*IDS[:5], None, *IDS[6:]]))), r"column 'id', row 5: there is no id"),
    "an id of two lines": (
        _write(_arrow(key=pa.array([*IDS[:7], "n7\nn8", *IDS[8:]]))),
        r"column 'id', row 7: id 'n7\\nn8' holds a control character",
    ),
    "an id with NUL": (
        _write(_arrow(key=pa.array([*IDS[:7], "n7\0", *IDS[8:]]))),
        r"row 7: id 'n7\\x00' holds a control",
    ),
    "numbers as ids": (_write(_arrow(key=pa.array(range(ROWS)))), "column 'id' is int64; ids are text"),
    "lost index": (_pandas(lambda frame: frame.drop(columns="id")), "pandas kept only a numbered index"),
    "no ids": (_write(_arrow().drop_columns(["id"])), "has no column 'id'; it has era, score"),
    "fraction of an era": (_write(_arrow(era=pa.array([1.5] * ROWS))), "column 'era' is double"),
    "no era": (_write(_arrow(era=pa.array([None, *ERA[1:]]))), "column 'era' is empty in row 0"),
    "live era": (_write(_arrow(era=pa.array(["X"] * ROWS))), "era 'X' is not a number"),
    "other column": (_write(_arrow().rename_columns(["id", "era", "other"])), r"has no column 'score'; it has id, era"),
    "same name": (_write(_arrow().append_column("score", pa.array(VALUES))), "column 'score' occurs twice"),
    "empty": (lambda path: path.write_bytes(b""), "is empty; fetch it again"),
    "half": (lambda path: (_write(_arrow())(path), path.write_bytes(path.read_bytes()[:900]))[0], "is truncated"),
    "web page": (lambda path: path.write_text("<html>no</html>"), "a web page"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(40)), "compressed with gzip"),
    "csv": (lambda path: plain().to_csv(path), "no parquet file"),
    "feather": (lambda path: plain().to_feather(path), "an Arrow"),
    "a pipe": (os.mkfifo, "is a pipe or a device; write its content to a file"),
    "spark": (lambda path: (path.mkdir(), (path / "_SUCCESS").touch())[0], "is a folder of part files"),
    "absent": (lambda path: None, "is missing"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_meant_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    write, words = REFUSED[kind]
    path = tmp_path / "file.parquet"
    write(path)
    with pytest.raises(DataError, match=words) as caught:
        read_rows(path, ["score"], eras=range(1, 99))
    assert str(path) in str(caught.value)


def test_an_all_null_column_is_all_missing(tmp_path: Path) -> None:
    pq.write_table(_arrow(score=pa.nulls(ROWS)), tmp_path / "file.parquet")
    assert np.isnan(read_rows(tmp_path / "file.parquet", ["score"]).values["score"]).all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"feature_sets": {"all": null}}', r"the set 'all' is null; it must be a list"),
        (b'{"feature_sets": {"all": [1]}}', r"the set 'all' is \[1\]"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[]", "has no table 'feature_sets'"),
    ],
)
def test_a_features_json_that_cannot_be_meant_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words):
        FeatureCatalog.load(path, sets=("all",))


def test_a_features_json_of_other_editors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "features.json"
    path.write_bytes(b'\xef\xbb\xbf{"feature_sets": {"all": ["feature_a"]}, "targets": null}')
    assert FeatureCatalog.load(path, sets=("all",)).columns == ("feature_a",)


# --- datasets by chance: whatever a writer allows is taken in or refused in words -----------------------------------


def draw(seed: int, folder: Path) -> str:
    """Ingest a dataset made by chance and read a file beside it; "taken", or the sentence that refuses it."""
    rng = np.random.default_rng(seed)
    folder.mkdir()
    tables = {"train": dataset(rng, 1, 3), "validation": dataset(rng, 4, 2)}
    live = dataset(rng, 9, 1)
    place = live.column_names.index("era")
    tables["live"] = live.set_column(place, "era", pa.array(["X"] * live.num_rows))
    harm = rng.integers(4)
    if harm:
        name = str(rng.choice(list(tables)))
        tables[name] = damaged(tables[name], rng)
    (folder / "features.json").write_text('{"feature_sets": {"all": ["feature_a", "feature_b", "feature_c"]}}')
    for name, table in tables.items():
        written(table, folder / f"{name}.parquet", rng)
    if harm == 3:
        spoiled(folder / f"{name}.parquet", rng)
    outcomes = []
    steps: list[Callable[[], Any]] = [
        lambda: ingest(folder, folder / "store").verify(),
        lambda: read_rows(folder / "validation.parquet", ["target_x_20"], eras={4, 5}),
        lambda: value_columns(folder / "live.parquet"),
    ]
    for step in steps:
        try:
            step()
        except EravaneError as error:
            outcomes.append(str(error))
    assert all(len(outcome) > 20 for outcome in outcomes)
    if not harm:
        assert outcomes == []
        assert EraStore.open(folder / "store").index.rows == 40
    return "; ".join(outcomes) or "taken"


@pytest.mark.parametrize("seed", range(40))
def test_no_file_by_chance_ends_in_a_raw_exception(seed: int, tmp_path: Path) -> None:
    draw(seed, tmp_path / "data")


@pytest.mark.full
@pytest.mark.parametrize("block", range(46))
def test_no_file_of_many_by_chance_ends_in_a_raw_exception(block: int, tmp_path: Path) -> None:
    for seed in range(40 + 10 * block, 50 + 10 * block):
        draw(seed, tmp_path / str(seed))


def test_chance_makes_good_and_bad_files(tmp_path: Path) -> None:
    outcomes = [draw(seed, tmp_path / str(seed)) for seed in range(20)]
    assert 3 <= outcomes.count("taken") <= 17
    logging.getLogger("eravane").debug("%s", outcomes)


def test_a_sound_file_opens(tmp_path: Path) -> None:
    pq.write_table(_arrow(), tmp_path / "file.parquet")
    assert open_parquet(tmp_path / "file.parquet").metadata.num_rows == ROWS
