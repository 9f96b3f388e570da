"""Made files in the dataset's format, small enough to travel over the loopback interface in a blink."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

GROUPS = {"wisdom": ["feature_a", "feature_b", "feature_c"], "rain": ["feature_c", "feature_d"]}
FEATURES = ("feature_a", "feature_b", "feature_c", "feature_d")

NEUTRAL = list(FEATURES[:3])


def features_json() -> bytes:
    sets = {"small": ["feature_a"], "medium": list(FEATURES[:2]), "all": list(FEATURES), **GROUPS}
    return json.dumps({"feature_sets": sets, "targets": ["target_ender_20", "target"]}).encode()


def rows(first: int, last: int, per_era: int = 40, *, seed: int = 0) -> pd.DataFrame:
    """Rows of the eras first..last: id index, era, data_type, int8 features, one target."""
    random = np.random.default_rng(seed)
    eras = np.repeat(np.arange(first, last + 1), per_era)
    frame = pd.DataFrame(
        {name: random.integers(0, 5, len(eras)).astype(np.int8) for name in FEATURES},
        index=pd.Index([f"n{seed:03x}{row:012x}" for row in first * 1000 + np.arange(len(eras))], name="id"),
    )
    frame.insert(0, "era", [f"{era:04d}" for era in eras])
    frame.insert(1, "data_type", "train")
    frame["target"] = random.choice([0.0, 0.25, 0.5, 0.75, 1.0], len(eras)).astype(np.float32)
    return frame


def live(count: int = 60, *, seed: int = 7) -> pd.DataFrame:
    frame = rows(1, 1, count, seed=seed)
    return frame.assign(era="X", data_type="live", target=np.float32("nan"))


def parquet(frame: pd.DataFrame, row_group_size: int = 50) -> bytes:
    """The frame as a parquet file whose size depends on its shape alone."""
    buffer = io.BytesIO()
    plain = {"compression": None, "use_dictionary": False, "write_statistics": False}
    frame.to_parquet(buffer, row_group_size=row_group_size, **plain)
    return buffer.getvalue()


def dataset(version: str = "v5.3") -> dict[str, bytes]:
    """The four files that a fetch brings, by their remote names."""
    return {
        f"{version}/features.json": features_json(),
        f"{version}/train.parquet": parquet(rows(1, 6)),
        f"{version}/validation.parquet": parquet(rows(7, 10)),
        f"{version}/live.parquet": parquet(live()),
    }


LIVE = live(120)
WEIGHTS = {"medium.wisdom": 0.6, "all.rain": 0.4}


def predictions(seed: int = 0, noise: float = 1.0) -> pd.DataFrame:
    """Predictions for LIVE that lean on one feature."""
    random = np.random.default_rng(seed)
    mixed = LIVE["feature_a"] + noise * 3 * random.random(len(LIVE))
    return pd.DataFrame({"id": LIVE.index, "prediction": ((mixed.rank() - 0.5) / len(LIVE)).to_numpy()})


def write_run(folder: Path, frame: pd.DataFrame, weights: dict[str, float] | None = None) -> Path:
    """A run folder with live predictions."""
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "live_predictions.csv", index=False)
    (folder / "live.json").write_text(json.dumps({"era": 12, "rows": 120, "weights": weights or WEIGHTS}))
    return folder


def receipt_files(run: Path) -> list[Path]:
    return sorted((run / "submissions").glob("*.json")) if (run / "submissions").exists() else []


PUBLIC_ID = "PUBLICID0PLANTED"
SECRET_KEY = "SECRETKEY0PLANTED0DO0NOT0WRITE"


@dataclass
class FakeTime:
    """A clock that moves when somebody sleeps."""

    now: float = 0.0
    sleeps: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds

    def clock(self) -> float:
        return self.now
