"""The shape of a dataset, on which the cost of a run depends; read from its era and target columns alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from eravane.calendar.eras import EraIndex, era_number
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, DataError
from eravane.data.catalog import FeatureCatalog
from eravane.data.ingest import FEATURES_JSON, HISTORY, LIVE
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.store import EraStore

# Version 5.3 as published in November 2026: eras, mean rows of an era, eras without labels, targets, and per feature
# group the features in small, in medium and in all.
VERSION = "v5.3"
ERAS, ROWS, UNLABELLED, TARGETS = 1231, 5567, 5, 41
SIZES = {"small": 42, "medium": 780, "all": 3555}
SMALL_AND_MEDIUM = 11
GROUPS: Mapping[str, tuple[int, int, int]] = {
    "intelligence": (2, 14, 35),
    "charisma": (3, 116, 290),
    "strength": (1, 54, 135),
    "dexterity": (4, 21, 51),
    "constitution": (2, 134, 335),
    "wisdom": (3, 56, 140),
    "agility": (2, 58, 145),
    "serenity": (3, 34, 95),
    "sunshine": (5, 130, 325),
    "rain": (20, 0, 666),
    "midnight": (0, 122, 244),
    "faith": (0, 75, 372),
    "quantum": (0, 0, 807),
}


@dataclass(frozen=True)
class DataShape:
    """Size of a dataset.

    Attributes:
        index: historical eras and their rows.
        newest_label: newest era in which the main target is known.
        catalog: the feature sets and groups that the run uses.
        dtype: "int8" or "float32".
        targets: target columns.
        live_rows: rows of the live era.
        stored: whether it is a store, which needs no ingest.
    """

    index: EraIndex
    newest_label: int
    catalog: FeatureCatalog
    dtype: str
    targets: int
    live_rows: int
    stored: bool


def read_shape(data: Path, config: RunConfig) -> DataShape:
    """Read the shape of a folder of dataset files or of a store; "v5.3", where no such folder exists, is built in.

    Raises:
        DataError: files are missing or break the dataset's contract.
        ConfigError: the target, a feature set or a group is not in the data.
    """
    if str(data) == VERSION and not data.exists():
        return published(config)
    if not data.is_dir():
        raise DataError(f"{data} is no folder; give a dataset's folder, a store, or {VERSION} for its published shape")
    settings = config.data
    groups = settings.feature_groups or None
    catalog = FeatureCatalog.load(data / FEATURES_JSON, sets=settings.feature_sets, groups=groups)
    if (data / MANIFEST).is_file():
        return _of_store(EraStore.open(data), catalog, settings.target)
    return _of_files(data, catalog, settings.target)


def published(config: RunConfig) -> DataShape:
    """The shape of version 5.3, every cell with its width, under made names.

    Raises:
        ConfigError: a feature set or group is not in it.
    """
    names = [f"feature_{number:04d}" for number in range(SIZES["all"])]
    alone = SIZES["small"] - SMALL_AND_MEDIUM
    ends = (0, alone, SIZES["small"] + SIZES["medium"] - SMALL_AND_MEDIUM, SIZES["all"])
    regions = [cycle(names[first:last]) for first, last in ((0, alone), (SIZES["small"], ends[2]), (ends[2], ends[3]))]
    listed = {
        group: tuple(
            name
            for region, count in zip(regions, (small, medium, whole - small - medium), strict=True)
            for name in islice(region, count)
        )
        for group, (small, medium, whole) in GROUPS.items()
    }
    sets = {
        "small": tuple(names[: SIZES["small"]]),
        "medium": tuple(names[alone : ends[2]]),
        "all": tuple(names),
    }
    wanted = dict.fromkeys("all" if name == "large" else name for name in config.data.feature_sets)
    chosen = config.data.feature_groups or tuple(GROUPS)
    for name in (*wanted, *chosen):
        if name not in sets and name not in listed:
            raise ConfigError(f"{VERSION} has no feature set or group {name!r}; it has {', '.join([*sets, *listed])}")
    catalog = FeatureCatalog(
        {name: sets[name] for name in wanted}, {name: listed[name] for name in chosen if name in listed}, ()
    )
    index = EraIndex.from_counts(range(1, ERAS + 1), [ROWS] * ERAS)
    return DataShape(index, ERAS - UNLABELLED, catalog, "int8", TARGETS, ROWS, False)


def _of_store(store: EraStore, catalog: FeatureCatalog, target: str) -> DataShape:
    if target not in store.targets:
        raise ConfigError(f"data.target {target!r} is not in the data; it has {', '.join(store.targets)}")
    newest = next((era for era in reversed(list(store.index)) if not np.isnan(store.target(target, era, era)).all()), 0)
    live = store.live()
    rows = 0 if live is None else live.index.rows
    return DataShape(store.index, _known(newest, target), catalog, store.dtype, len(store.targets), rows, True)


def _of_files(data: Path, catalog: FeatureCatalog, target: str) -> DataShape:
    counts: dict[int, int] = {}
    newest, dtype, targets = 0, "int8", 0
    for name in HISTORY:
        columns, schema = _columns(data / name, target)
        targets = sum(column.startswith("target") for column in schema.names)
        first = schema.field(catalog.columns[0]) if catalog.columns[0] in schema.names else None
        if first is not None and pa.types.is_floating(first.type):
            dtype = "float32"
        found = columns.group_by("era").aggregate([("era", "count"), ("known", "max")]).to_pydict()
        for label, rows, known in zip(found["era"], found["era_count"], found["known_max"], strict=True):
            era = era_number(label)
            counts[era] = counts.get(era, 0) + rows
            newest = max(newest, era) if known else newest
    live = data / LIVE
    rows = pq.read_metadata(live).num_rows if live.is_file() else 0
    eras = sorted(counts)
    index = EraIndex.from_counts(eras, [counts[era] for era in eras])
    return DataShape(index, _known(newest, target), catalog, dtype, targets, rows, False)


def _columns(path: Path, target: str) -> tuple[pa.Table, pa.Schema]:
    try:
        schema = pq.read_schema(path)
        if target not in schema.names:
            listed = ", ".join(name for name in schema.names if name.startswith("target"))
            raise ConfigError(f"data.target {target!r} is not in {path}; it has {listed or 'no targets'}")
        table = pq.read_table(path, columns=["era", target])
    except FileNotFoundError:
        raise DataError(f"{path} is missing; the dataset needs it (`eravane fetch` gets it)") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} cannot be read ({str(error).splitlines()[0]}); fetch it again") from None
    known = pc.is_valid(table[target]) if table.num_rows else table[target]
    if pa.types.is_floating(table.schema.field(target).type):
        known = pc.invert(pc.is_null(table[target], nan_is_null=True))
    return pa.table({"era": table["era"].cast(pa.string()), "known": known.cast(pa.int8())}), schema


def _known(newest: int, target: str) -> int:
    if not newest:
        raise DataError(f"target {target!r} is missing in every row; choose another data.target")
    return newest
