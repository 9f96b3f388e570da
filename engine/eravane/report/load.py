"""A run folder read as data: every file of the contract may be missing, partial or damaged."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from eravane.calendar.horizon import Horizon, TargetHorizon
from eravane.core.errors import RunError

CONTRACT = {
    "run.toml": "the resolved configuration",
    "manifest.json": "versions, device, periods and lags",
    "events.jsonl": "what each step cost",
    "zoo.parquet": "the base models",
    "oof.parquet": "out-of-fold predictions",
    "base_predictions.parquet": "the base models' predictions in the loop",
    "weights.parquet": "the gate's weights",
    "predictions.parquet": "the ensemble's predictions",
    "scores.parquet": "scores by era",
    "metrics.json": "the run's own summary",
    "live_predictions.csv": "predictions for the live round",
}
# Optional tables; their absence is no warning.
OPTIONAL = ("prototypes", "exposure", "missing", "telemetry", "references")
BASE_SERIES = ("ensemble", "equal_weight", "best_single")


@dataclass(frozen=True, eq=False)
class RunView:
    """The content of a run folder, in memory except for the per-row files.

    Attributes:
        path: the run folder.
        manifest, metrics, config, live: the parsed JSON and TOML files, empty where they could not be read.
        events: one dict per readable line of `events.jsonl`.
        tables: the small parquet files by stem (`zoo`, `weights`, `scores` and the optional ones); tables by
            era have the integer era as index, ascending, the last row of a repeated era kept.
        missing: contract files that are not there.
        damaged: file name -> why it could not be read, whole or in part.
    """

    path: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    live: Mapping[str, Any] = field(default_factory=dict)
    events: tuple[Mapping[str, Any], ...] = ()
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def table(self, name: str) -> pd.DataFrame:
        """A table by stem; empty where the run has none."""
        return self.tables.get(name, pd.DataFrame())

    def fact(self, path: str, default: object = None) -> Any:
        """The manifest's value at a path such as "lags.hac"; the default where it has none there."""
        found: Any = self.manifest
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return default if found is None else found

    @property
    def name(self) -> str:
        """The run folder's own name."""
        return self.path.resolve().name

    @property
    def target(self) -> str:
        """The target the run is scored on, "" where the manifest has none."""
        data = self.config.get("data")
        configured = data.get("target", "") if isinstance(data, Mapping) else ""
        return str(self.fact("target", default=configured))

    @property
    def target_sentence(self) -> str:
        """The target with its twin, horizon and lags; its name alone where the manifest does not state them."""
        noted, score, tree = self.fact("horizon"), self.fact("lags.score"), self.fact("lags.tree")
        try:
            return TargetHorizon.from_dict(noted).sentence(int(score), int(tree))
        except (KeyError, TypeError, ValueError):
            return self.target

    @property
    def hac_lag(self) -> int:
        """Bartlett lag in eras: the manifest's, else by the target's name (8 for 20-day, 16 for 60-day or unknown)."""
        stated = self.fact("lags.hac")
        return int(stated) if isinstance(stated, int) else (Horizon.named(self.target) or Horizon.of_days(60)).hac_lag

    @cached_property
    def report_start(self) -> int:
        """First era that headline numbers count; the first scored era where the manifest has none."""
        stated = self.fact("periods.report_start")
        if stated is not None and str(stated).isdecimal():
            return int(stated)
        scores = self.table("scores")
        return int(scores.index[0]) if len(scores) else 0

    @property
    def leaking(self) -> bool:
        """Whether manifest or metrics stamp the run as leaking."""
        return bool(self.fact("leaking", default=False)) or bool(self.metrics.get("leaking", False))

    @property
    def finished(self) -> bool:
        """Whether the run is complete by its manifest; without a status there, whether no file is missing."""
        status = self.manifest.get("status")
        return status == "complete" if status is not None else not self.missing

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Base models that carry weights, in zoo order; else those that the zoo selected."""
        weighted = [name for name in self.table("weights").columns if name != "n_active"]
        zoo = self.table("zoo")
        known = zoo["model_id"].astype(str).tolist() if "model_id" in zoo else []
        if not weighted and "selected" in zoo:
            return tuple(zoo.loc[zoo["selected"].astype(bool), "model_id"].astype(str))
        order = {name: position for position, name in enumerate(known)}
        return tuple(sorted(weighted, key=lambda name: order.get(name, len(order))))

    @cached_property
    def series(self) -> tuple[str, ...]:
        """Score columns that are not base models: the ensemble, its baselines, then any benchmark."""
        columns = [str(name) for name in self.table("scores").columns if name != "known_at"]
        zoo = self.table("zoo")
        modelled = set(self.models) | (set(zoo["model_id"].astype(str)) if "model_id" in zoo else set())
        base = [name for name in BASE_SERIES if name in columns]
        if not modelled:
            return tuple(base)
        return tuple(base + [name for name in columns if name not in base and name not in modelled])

    def counted(self, name: str) -> pd.Series[float]:
        """Scores of one column from `report_start` on, indexed by era; eras without a score are left out."""
        scores = self.table("scores")
        if name not in scores:
            return pd.Series(dtype=np.float64)
        return scores.loc[scores.index >= self.report_start, name].astype(np.float64).dropna()


def load_run(path: Path | str) -> RunView:
    """Read a run folder, finished or not.

    Raises:
        RunError: the folder does not exist or holds no file of the run folder contract.
    """
    run = Path(path)
    if not run.is_dir():
        raise RunError(f"{run} is not a folder; give the folder that `eravane run --out` wrote")
    missing = tuple(name for name in CONTRACT if not (run / name).is_file())
    if len(missing) == len(CONTRACT):
        raise RunError(f"{run} holds none of {', '.join(CONTRACT)}; give the folder that `eravane run --out` wrote")
    damaged: dict[str, str] = {}
    tables = {
        name: table
        for name in ("zoo", "weights", "scores", *OPTIONAL)
        if (table := _read_table(run / f"{name}.parquet", damaged)) is not None
    }
    return RunView(
        path=run,
        manifest=_read_mapping(run / "manifest.json", damaged),
        metrics=_read_mapping(run / "metrics.json", damaged),
        config=_read_mapping(run / "run.toml", damaged),
        live=_read_mapping(run / "live.json", damaged),
        events=_read_events(run / "events.jsonl", damaged),
        tables=tables,
        missing=missing,
        damaged=damaged,
    )


def _read_mapping(path: Path, damaged: dict[str, str]) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        value = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except ValueError as error:
        damaged[path.name] = f"cannot be parsed: {error}"
        return {}
    if not isinstance(value, Mapping):
        damaged[path.name] = f"expected an object, found {type(value).__name__}"
        return {}
    return value


def _read_events(path: Path, damaged: dict[str, str]) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    events, bad = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        if isinstance(event, Mapping):
            events.append(event)
        elif line.strip():
            bad += 1
    if bad:
        damaged[path.name] = f"{bad} of {bad + len(events)} lines are not JSON objects and were skipped"
    return tuple(events)


def _read_table(path: Path, damaged: dict[str, str]) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path).to_pandas()
    except (OSError, pa.ArrowException) as error:
        damaged[path.name] = f"cannot be read: {str(error).splitlines()[0]}"
        return None
    if "era" not in table and table.index.name == "era":
        table = table.reset_index()
    if "era" not in table:
        return table
    numbers = pd.to_numeric(table["era"], errors="coerce")
    if numbers.isna().any():
        damaged[path.name] = f"{int(numbers.isna().sum())} rows have no era number and were skipped"
    table = table[numbers.notna()].drop(columns="era").set_axis(numbers.dropna().astype(int), axis=0)
    table.index.name = "era"
    return table[~table.index.duplicated(keep="last")].sort_index(kind="stable")
