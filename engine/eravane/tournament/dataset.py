"""A dataset folder as `fetch` keeps it: what it holds, of which version, and whether its files are sound."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from eravane.core.errors import ConfigError, DataError
from eravane.core.files import write_atomically
from eravane.data.catalog import FEATURES_JSON, HISTORY, LIVE, FeatureCatalog
from eravane.data.parquet import ERA, open_parquet, read_table
from eravane.data.store.source import Source

RECORD = "dataset.json"
WITH_FEATURES = (*HISTORY, LIVE)


@dataclass(frozen=True)
class Content:
    """Content of a sound file: rows, and its first and last era (None where it has none, or only the live era)."""

    rows: int | None = None
    first_era: int | None = None
    last_era: int | None = None


@dataclass(frozen=True)
class FileRecord:
    """A fetched file: what the server called it, its checksum, when it came, and what it holds."""

    etag: str | None
    size: int | None
    sha256: str
    fetched: str
    round: int | None
    content: Content


@dataclass(frozen=True)
class Dataset:
    """The record of a dataset folder.

    Attributes:
        version: the one version its files are of.
        files: file name -> record.
    """

    version: str
    files: Mapping[str, FileRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Dataset | None:
        """The record of a folder; None when `fetch` never wrote there.

        Raises:
            DataError: the record is damaged.
        """
        path = folder / RECORD
        try:
            noted = json.loads(path.read_text(encoding="utf-8"))
            files = {
                str(name): FileRecord(**{**entry, "content": Content(**entry["content"])})
                for name, entry in noted["files"].items()
            }
            return cls(str(noted["version"]), files)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{path} is damaged; delete it together with the files beside it, and fetch again"
            ) from None

    def write(self, folder: Path) -> None:
        """Write the record, whole or not at all."""
        write_atomically(folder / RECORD, (json.dumps(asdict(self), indent=2) + "\n").encode())


def examine(path: Path, name: str, features: Path, before: Content | None) -> Content:
    """Read a file that has just arrived from end to end, and check that it is what its name promises.

    Args:
        path: the file, still under its temporary name.
        name: its name in the dataset.
        features: the folder's `features.json`, whose features the rows must have.
        before: what the file held when it was last fetched.

    Raises:
        DataError: naming the file and what is wrong with it.
    """
    try:
        return _examine(path, name, features, before)
    except (ConfigError, DataError) as error:
        raise DataError(f"{name} arrived damaged and was thrown away: {error}") from None


def _examine(path: Path, name: str, features: Path, before: Content | None) -> Content:
    if name == FEATURES_JSON:
        FeatureCatalog.load(path, sets=("all",))
        return Content()
    if not name.endswith(".parquet"):
        return Content()
    if name not in WITH_FEATURES and ERA not in open_parquet(path).schema_arrow.names:
        return Content(read_table(path).num_rows)
    source = Source(path)
    for _ in source.blocks(tuple(source.types), source.groups):
        pass  # decoding is the check: a page that does not decode raises
    if name.startswith("live"):
        source.require_live()
        content = Content(source.rows)
    else:
        eras = np.unique(source.eras())
        content = Content(source.rows, int(eras[0]), int(eras[-1]))
        _check_eras(eras.tolist(), name, before)
    if name in WITH_FEATURES:
        _check_features(source, features)
    return content


def _check_eras(eras: list[int], name: str, before: Content | None) -> None:
    gaps = [(first, second) for first, second in pairwise(eras) if second != first + 1]
    if gaps and name in WITH_FEATURES:
        raise DataError(f"eras between {gaps[0][0]} and {gaps[0][1]} are missing")
    if before is not None and before.last_era is not None and eras[-1] < before.last_era:
        raise DataError(f"it ends with era {eras[-1]}, but an earlier download reached era {before.last_era}")


def _check_features(source: Source, features: Path) -> None:
    listed = FeatureCatalog.load(features, sets=("all",)).columns
    lacking = sorted(set(listed) - set(source.features))
    if lacking:
        raise DataError(f"{len(lacking)} of the features in {FEATURES_JSON} are missing, first {lacking[0]!r}")


def check_together(files: Mapping[str, FileRecord]) -> None:
    """Check that validation continues where train ends.

    Raises:
        DataError: there is a gap or an overlap.
    """
    train, validation = HISTORY
    if not set(HISTORY) <= set(files):
        return
    last, first = files[train].content.last_era, files[validation].content.first_era
    if last is not None and first is not None and first != last + 1:
        raise DataError(f"{train} ends with era {last}, {validation} begins with era {first}; fetch both again")


def live_ids(path: Path) -> list[str]:
    """The row ids of a parquet file, in file order.

    Raises:
        DataError: the file is no parquet or has no ids.
    """
    return [str(name) for name in Source(path).ids.to_pylist()]


def read_columns(path: Path, columns: list[str]) -> np.ndarray:
    """Columns of a small parquet file as float32 [C, N]."""
    table = read_table(path, columns)
    return np.stack([table.column(name).to_numpy().astype(np.float32) for name in columns])
