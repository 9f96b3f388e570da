"""The shape of a dataset, on which the cost of a run depends; read from its era and target columns alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.calendar.eras import EraIndex
from eravane.calendar.horizon import Horizon, TargetHorizon
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, DataError
from eravane.data.catalog import HISTORY, LIVE, FeatureCatalog
from eravane.data.parquet import open_parquet
from eravane.data.store.cast import as_floats
from eravane.data.store.manifest import MANIFEST
from eravane.data.store.source import Source
from eravane.data.store.store import EraStore
from eravane.data.store.targets import LabelBlock, TargetFacts, survey, target_horizons
from eravane.loop.pool import neutral_columns

# Version 5.3 as published in November 2026: eras, mean rows of an era, targets, and per feature
# group the features in small, in medium and in all.
VERSION = "v5.3"
ERAS, ROWS, TARGETS = 1231, 5567, 41
# There `target` equals target_ender_60 (numerai/example-scripts, 2026).
TARGET_TWIN = "target_ender_60"
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
        horizons: how long the labels of each target in use are.
    """

    index: EraIndex
    newest_label: int
    catalog: FeatureCatalog
    dtype: str
    targets: int
    live_rows: int
    stored: bool
    horizons: Mapping[str, TargetHorizon]


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
    catalog = FeatureCatalog.of_run(data, config.data)
    neutral_columns(config, catalog)  # a set that the run does not have is refused here, too
    if (data / MANIFEST).is_file():
        return _of_store(EraStore.open(data), catalog, config)
    return _of_files(data, catalog, config)


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
        {name: sets[name] for name in wanted}, {name: listed[name] for name in chosen if name in listed}
    )
    index = EraIndex.from_counts(range(1, ERAS + 1), [ROWS] * ERAS)
    horizons = {target: _published_horizon(target, config) for target in (config.data.target, *config.targets)}
    empty = horizons[config.data.target].span.empty_eras
    return DataShape(index, ERAS - empty, catalog, "int8", TARGETS, ROWS, False, horizons)


def _published_horizon(target: str, config: RunConfig) -> TargetHorizon:
    if target == "target":
        return TargetHorizon(target, Horizon.required(TARGET_TWIN), "twin", TARGET_TWIN)
    return TargetHorizon(target, Horizon.required(target, config.data.horizon_eras), "name")


def _of_store(store: EraStore, catalog: FeatureCatalog, config: RunConfig) -> DataShape:
    horizons = target_horizons(config, store.facts)
    newest, live = store.facts[config.data.target].newest, store.live()
    rows = 0 if live is None else live.index.rows
    return DataShape(store.index, newest, catalog, store.dtype, len(store.targets), rows, True, horizons)


def _of_files(data: Path, catalog: FeatureCatalog, config: RunConfig) -> DataShape:
    found = read_targets(data)
    horizons = target_horizons(config, found.facts)
    dtype = "int8"
    for source in found.sources:
        kind = source.types.get(catalog.columns[0])
        dtype = "float32" if kind is not None and pa.types.is_floating(kind) else dtype
    live = data / LIVE
    rows = open_parquet(live).metadata.num_rows if live.exists() else 0
    first, last = config.data.first_era or found.index.first, config.data.last_era or found.index.last
    index = found.index.select(first, last)
    if not len(index):
        raise DataError(
            f"{data} has eras {found.index.first} to {found.index.last}, and none from data.first_era to data.last_era"
        )
    newest = min(found.facts[config.data.target].newest, index.last)
    return DataShape(index, newest, catalog, dtype, len(found.facts), rows, False, horizons)


@dataclass(frozen=True)
class FileTargets:
    """Eras and targets in the files of a dataset.

    Attributes:
        index: historical eras and their rows.
        facts: target -> facts from its labels.
        sources: the files.
    """

    index: EraIndex
    facts: Mapping[str, TargetFacts]
    sources: tuple[Source, ...]


def read_targets(data: Path) -> FileTargets:
    """Read the era and target columns of a folder of files; features are not touched.

    Raises:
        DataError: a file is missing or breaks the dataset's contract.
    """
    sources = tuple(Source(data / name) for name in HISTORY)
    targets = sources[0].targets
    for source in sources:
        lacking = [name for name in targets if name not in source.types]
        if lacking or not targets:
            raise DataError(f"{source.path} has no column {lacking[0] if lacking else 'target'!r}; fetch it again")
    eras = {source.path: source.eras().astype(np.int64) for source in sources}
    labels, counts = np.unique(np.concatenate(list(eras.values())), return_counts=True)
    blocks = (block for source in sources for block in _label_blocks(source, targets, eras[source.path]))
    return FileTargets(EraIndex.from_counts(labels, counts), survey(targets, labels.tolist(), blocks), sources)


def _label_blocks(source: Source, targets: tuple[str, ...], era_N: NDArray[np.int64]) -> Iterator[LabelBlock]:
    for group in source.groups:
        first, values = group.first, []
        for block in source.blocks(targets, [group]):
            names = targets[block.first :]
            values += [
                as_floats(source, name, column, first) for name, column in zip(names, block.columns, strict=False)
            ]

        def id_of(row: int, first: int = first) -> str:
            return str(source.ids[first + row].as_py())

        yield LabelBlock(np.stack(values), era_N[first : first + group.rows], id_of)
