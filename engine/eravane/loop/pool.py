"""The pool of a run on disk: the selected base models and their out-of-fold predictions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.calendar.eras import era_label
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, RunError
from eravane.core.files import write_atomically
from eravane.data.catalog import FeatureCatalog
from eravane.gate.outcomes import GateModel
from eravane.zoo.specs import ModelSpec

POOL = "pool.json"
OOF = "oof.parquet"
OofOf = Callable[[int], NDArray[np.float32]]
"""Out-of-fold predictions of an era, float32 [M, N]."""


def neutral_columns(config: RunConfig, catalog: FeatureCatalog) -> tuple[str, ...]:
    """Features that the ensemble is neutralised to; empty where neutralisation is off.

    Raises:
        ConfigError: it is not among the feature sets of the run.
    """
    name = config.postprocess.neutralize
    if not name:
        return ()
    columns = catalog.sets.get("all" if name == "large" else name)
    if columns is None:
        raise ConfigError(
            f"postprocess.neutralize is one of data.feature_sets ({', '.join(catalog.sets)}), given {name!r}"
        )
    return columns


def write_pool(folder: Path, specs: Sequence[ModelSpec], neutral: tuple[str, ...]) -> None:
    """Store the pool, so that weekly steps need no features.json and no selection."""
    models = [dataclasses.asdict(dataclasses.replace(spec, benchmark="")) for spec in specs]
    content = {"models": models, "neutral_columns": list(neutral)}
    (folder / "checkpoints").mkdir(exist_ok=True)
    write_atomically(folder / "checkpoints" / POOL, (json.dumps(content) + "\n").encode())


def read_pool(folder: Path) -> tuple[tuple[ModelSpec, ...], tuple[str, ...]]:
    """The base models and the features of the neutralisation that `write_pool` kept.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = folder / "checkpoints" / POOL
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        specs = [ModelSpec(**{**entry, "columns": tuple(entry["columns"])}) for entry in content["models"]]
        return tuple(specs), tuple(content["neutral_columns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({error}); finish the run first, with --resume") from error


def gate_pool(
    specs: Sequence[ModelSpec], columns: Sequence[str]
) -> tuple[list[GateModel], dict[tuple[str, str], NDArray[np.int64]]]:
    """The pool as the gate knows it: its models, and the places of every cell's features among the columns."""
    places = {name: place for place, name in enumerate(columns)}
    cells = {
        # A member from outside saw the whole market for all we know.
        (spec.feature_set, spec.group): np.array(
            [places[name] for name in (columns if spec.outside else spec.columns)], dtype=np.int64
        )
        for spec in specs
    }
    return [GateModel(spec.model_id, spec.feature_set, spec.group) for spec in specs], cells


class StoredOof:
    """Out-of-fold predictions read back from `oof.parquet`.

    Args:
        folder: the run folder.
        model_ids: the pool, in the requested order.
    """

    def __init__(self, folder: Path, model_ids: Sequence[str]) -> None:
        self._table = pq.read_table(folder / OOF, columns=["era", *model_ids], memory_map=True)
        self._model_ids = tuple(model_ids)
        self.eras = sorted(int(era) for era in pc.unique(self._table["era"]).to_pylist())

    def __call__(self, era: int) -> NDArray[np.float32]:
        """Predictions of one era, float32 [M, N]."""
        rows = self._table.filter(pc.equal(self._table["era"], era_label(era)))
        return np.stack([rows[name].to_numpy().astype(np.float32, copy=False) for name in self._model_ids])
