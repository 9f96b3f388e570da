"""Small datasets in Numerai's layout, as pandas frames and parquet files, to be broken in every way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

FEATURES = tuple(f"feature_{number:02d}" for number in range(12))
TARGETS = ("target", "target_ender_20", "target_ender_60")


def rows(first: int, last: int, *, per_era: int = 30, floats: bool = False, seed: int = 0) -> pd.DataFrame:
    """Rows of eras first..last: id index, era, data_type, features, targets; era sizes vary."""
    parts = []
    for era in range(first, last + 1):
        random = np.random.default_rng((seed, era))
        count = per_era + era % 5
        features = random.normal(0.5, 0.1, (count, len(FEATURES))).astype(np.float32)
        if floats:
            features[random.random(features.shape) < 0.05] = np.nan
        else:
            features = random.integers(0, 5, features.shape).astype(np.int8)
        part = pd.DataFrame(features, columns=list(FEATURES))
        part.insert(0, "era", f"{era:04d}")
        part.insert(1, "data_type", "train")
        for name in TARGETS:
            part[name] = random.choice([0.0, 0.25, 0.5, 0.75, 1.0], count).astype(np.float32)
        part.index = pd.Index([f"n{seed:03x}{era:06x}{row:06x}" for row in range(count)], name="id")
        parts.append(part)
    return pd.concat(parts)


@dataclass
class Dataset:
    """A dataset that is about to be written."""

    train: pd.DataFrame
    validation: pd.DataFrame
    live: pd.DataFrame | None
    listed: Sequence[str] = FEATURES
    row_groups: int = 100
    extra: dict[str, object] = field(default_factory=dict)

    @classmethod
    def make(cls, *, train: int = 8, last: int = 14, unlabelled: int = 2, floats: bool = False) -> Dataset:
        """Eras 1..train, train+1..last of which the newest lack the main target, and live rows."""
        validation = rows(train + 1, last, floats=floats)
        open_era = validation["era"] > f"{last - unlabelled:04d}"
        validation["data_type"] = np.where(open_era, "test", "validation")
        validation.loc[open_era, ["target", "target_ender_20", "target_ender_60"]] = np.nan
        live = rows(1, 1, seed=99, floats=floats).assign(era="X", data_type="live", **dict.fromkeys(TARGETS, np.nan))
        return cls(rows(1, train, floats=floats), validation, live.astype(dict.fromkeys(TARGETS, np.float32)))

    def write(self, folder: Path) -> Path:
        """Write features.json and the parquet files."""
        folder.mkdir(parents=True, exist_ok=True)
        sets = {"small": list(self.listed[:3]), "all": list(self.listed), "wisdom": list(self.listed[2:6])}
        document = {"feature_sets": sets, "targets": list(TARGETS), **self.extra}
        (folder / "features.json").write_text(json.dumps(document), encoding="utf-8")
        for name in ("train", "validation", "live"):
            frame = getattr(self, name)
            if frame is not None:
                frame.to_parquet(folder / f"{name}.parquet", row_group_size=self.row_groups)
        return folder

    @property
    def history(self) -> pd.DataFrame:
        """Train and validation rows in era order, rows of an era as they come."""
        both = pd.concat([self.train, self.validation])
        return both.iloc[np.argsort(both["era"].astype(int).to_numpy(), kind="stable")]


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store by its relative path."""
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def next_week(made: Dataset, *, last: int = 16) -> Dataset:
    """The dataset two weeks later: two more eras, and the labels of the two that were open."""
    later = Dataset.make(last=last)
    assert made.live is not None
    later.live = made.live.rename(index=lambda name: name.replace("n", "m", 1))
    return later
