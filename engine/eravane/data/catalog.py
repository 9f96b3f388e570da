"""Feature sets and groups of `features.json`, and the cells they form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from eravane.core.config import DataConfig
from eravane.core.errors import ConfigError, DataError
from eravane.data.parquet import require_file

# Files of a dataset: rows with features and labels, the live rows, and what Numerai publishes beside them.
FEATURES_JSON = "features.json"
HISTORY = ("train.parquet", "validation.parquet")
LIVE = "live.parquet"
META_MODEL, META_COLUMN = "meta_model.parquet", "numerai_meta_model"
BENCHMARKS = ("train_benchmark_models.parquet", "validation_benchmark_models.parquet")
LIVE_BENCHMARKS = "live_benchmark_models.parquet"
# In a run's manifest, under `data`: those of these files, but the live ones, that the dataset had.
REFERENCES = "references"

FEATURE_SETS = ("small", "medium", "all")
WHOLE_SET = "all"  # pseudo-group: the feature set as a whole
# Lists in features.json that are neither nested sets nor economic groups.
_OTHER_SETS = re.compile(r"^(v\d+_equivalent_features|fncv\d+_features)$")


@dataclass(frozen=True)
class Cell:
    """One feature set crossed with one feature group.

    Attributes:
        feature_set: name of the set ("small", "medium", "all").
        group: name of the group, or "all" for the whole set.
        columns: feature names, in the order of the set.
    """

    feature_set: str
    group: str
    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        """`set.group`, as in model ids."""
        return f"{self.feature_set}.{self.group}"


@dataclass(frozen=True)
class FeatureCatalog:
    """The feature sets and groups of one dataset version.

    Attributes:
        sets: set name -> feature names.
        groups: group name -> feature names; groups may overlap and need not cover a set.
    """

    sets: Mapping[str, tuple[str, ...]]
    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(
        cls, path: Path, *, sets: Sequence[str] = FEATURE_SETS, groups: Sequence[str] | None = None
    ) -> FeatureCatalog:
        """Read `features.json`; NaN literals, as v4 files have them, are accepted.

        Args:
            path: the file.
            sets: feature sets to use; `large` is another name for `all`.
            groups: feature groups to use; None takes every list that is not a known set.

        Raises:
            DataError: the file is missing, is no JSON, or lacks `feature_sets`.
            ConfigError: a requested set or group is not in the file.
        """
        listed = _read(path)
        wanted_sets = tuple(dict.fromkeys("all" if name == "large" else name for name in sets))
        known_groups = tuple(name for name in listed if name not in FEATURE_SETS and not _OTHER_SETS.match(name))
        wanted_groups = known_groups if groups is None else tuple(groups)
        for kind, wanted in (("feature set", wanted_sets), ("feature group", wanted_groups)):
            for name in wanted:
                if name not in listed:
                    raise ConfigError(f"{kind} {name!r} is not in {path}; it lists {', '.join(sorted(listed))}")
        return cls(
            sets={name: listed[name] for name in wanted_sets},
            groups={name: listed[name] for name in wanted_groups if name != WHOLE_SET},
        )

    @classmethod
    def of_run(cls, folder: Path, config: DataConfig) -> FeatureCatalog:
        """The feature sets and groups of a run, from the features.json of a dataset or a store; raises as `load`."""
        return cls.load(folder / FEATURES_JSON, sets=config.feature_sets, groups=config.feature_groups or None)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every feature of the chosen sets once, the widest set's order first."""
        widest_first = sorted(self.sets.values(), key=len, reverse=True)
        return tuple(dict.fromkeys(name for members in widest_first for name in members))

    def cells(self, *, leave_one_out: bool = False) -> list[Cell]:
        """Every non-empty cell: each set as a whole, then set x group in the file's order.

        Args:
            leave_one_out: also give, per set and group, the set without that group (`-group`).
        """
        found: list[Cell] = []
        for set_name, members in self.sets.items():
            found.append(Cell(set_name, WHOLE_SET, members))
            for group, features in self.groups.items():
                inside = frozenset(features)
                found.append(Cell(set_name, group, tuple(name for name in members if name in inside)))
                if leave_one_out and inside & frozenset(members):
                    rest = tuple(name for name in members if name not in inside)
                    found.append(Cell(set_name, f"-{group}", rest))
        return [cell for cell in found if cell.columns]

    def empty_cells(self) -> list[tuple[str, str]]:
        """The (set, group) pairs that share no feature."""
        return [
            (set_name, group)
            for set_name, members in self.sets.items()
            for group, features in self.groups.items()
            if not frozenset(members) & frozenset(features)
        ]


def listed_features(path: Path) -> tuple[str, ...]:
    """Every feature that some list of `features.json` names, once, in the file's order.

    Raises:
        DataError: the file is missing, is no JSON, or lacks `feature_sets`.
    """
    return tuple(dict.fromkeys(name for members in _read(path).values() for name in members))


def _read(path: Path) -> dict[str, tuple[str, ...]]:
    require_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if (path.parent / "run.toml").is_file():
            advice = "give a dataset's folder, or a store made by `eravane ingest`"
            raise DataError(f"{path.parent} is a run folder; {advice}") from None
        raise DataError(f"{path} is missing; it comes with the dataset (`eravane fetch` gets it)") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("feature_sets"), dict):
        raise DataError(f"{path} has no table 'feature_sets' (set name -> list of features)")
    for name, features in content["feature_sets"].items():
        if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
            raise DataError(f"{path}: the set {name!r} is {_shown(features)}; it must be a list of feature names")
    return {name: tuple(dict.fromkeys(features)) for name, features in content["feature_sets"].items()}


def _shown(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
