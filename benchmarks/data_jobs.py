"""Jobs measured by `data`, each in a process of its own."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HISTORY = ("train.parquet", "validation.parquet")


def decode(data: str) -> None:
    """Decode every column of the history files with pyarrow, one row group at a time, and keep nothing."""
    for name in HISTORY:
        with pq.ParquetFile(Path(data) / name) as file:
            for group in range(file.metadata.num_row_groups):
                file.read_row_group(group)


def decode_in_blocks(data: str) -> None:
    """Decode the same columns two hundred at a time, which saves the memory of a whole row group."""
    for name in HISTORY:
        with pq.ParquetFile(Path(data) / name) as file:
            columns = file.schema_arrow.names
            for group in range(file.metadata.num_row_groups):
                for first in range(0, len(columns), 200):
                    file.read_row_group(group, columns=columns[first : first + 200])


def take_in(data: str, store: str) -> None:
    """Make a store of every feature."""
    from eravane.data.ingest import ingest

    ingest(data, store)


def prepare_take_in() -> None:
    """Load the libraries and compile what is compiled once per machine."""
    from eravane.data.ingest import ingest
    from eravane.data.store.digest import digest_runs, first_level_fault, hash_ids

    assert callable(ingest)
    for dtype in (np.int8, np.float32):
        digest_runs(np.zeros((2, 64), dtype=dtype), np.array([0, 64]))
    first_level_fault(np.zeros((2, 64), dtype=np.int8))
    hash_ids(pa.array(["a"]))


def read_with_pandas(data: str) -> None:
    """The straightforward method: one data frame of features, then one float32 matrix, file by file."""
    import pandas as pd

    held = []
    for name in HISTORY:
        path = Path(data) / name
        features = [column for column in pq.read_schema(path).names if column.startswith("feature")]
        held.append(pd.read_parquet(path, columns=features).to_numpy(np.float32))


def run_batch(data: str, config: str, out: str, cache: str, limit: str) -> None:
    """The whole batch under a limit of anonymous memory (RLIMIT_DATA, `ulimit -d`)."""
    size = int(limit)
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    from eravane.core.config import load_config
    from eravane.pipeline.batch import run

    run(Path(data), load_config(Path(config)), Path(out), cache=Path(cache))


def columns_of(store_or_data: Path, how_many: int) -> list[str]:
    """The medium set of a dataset, cut or filled up with further features to `how_many`."""
    sets = json.loads((store_or_data / "features.json").read_text())["feature_sets"]
    names = dict.fromkeys([*sets["medium"], *sets["all"]])
    return list(names)[:how_many]
