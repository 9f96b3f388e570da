"""Puts a loop together: the same for a backtest, a resumed run, a weekly step and a replay."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.backend import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.eras import EraFrame, era_label
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, RunError
from eravane.core.files import write_atomically
from eravane.core.seeds import derive_seed
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.gate.context import ContextBuilder
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import GateModel
from eravane.loop.loop import Loop
from eravane.loop.results import ResultFiles
from eravane.loop.session import Session
from eravane.loop.tally import Tally
from eravane.loop.updates import Model, Updater
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.neutralization import Neutraliser
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo, start_models
from eravane.zoo.training import Finished

POOL = "pool.json"
OOF = "oof.parquet"
OofOf = Callable[[int], NDArray[np.float32]]


@dataclass(frozen=True)
class Engine:
    """All that the loop of a run is built from.

    Attributes:
        folder: the run folder.
        config: the run's configuration.
        features: the store's prepared features and labels.
        timeline: periods and lags.
        specs: the selected base models.
        zoo: trains them.
        backend: the device.
        neutral_columns: features that the ensemble is neutralised to; empty for none.
        known_at: labels that came later than the lags say.
    """

    folder: RunFolder
    config: RunConfig
    features: Features
    timeline: Timeline
    specs: tuple[ModelSpec, ...]
    zoo: Zoo
    backend: Backend
    neutral_columns: tuple[str, ...] = ()
    known_at: KnownAt = dataclasses.field(default_factory=KnownAt)

    def session(self, identity: Mapping[str, Sequence[str]]) -> tuple[Session, Loop]:
        """A fresh loop, and the session that keeps it on disk."""
        config, ops = self.config, self.backend.ops
        loop = self._loop()
        tally = Tally(self.features, config.data.target, self.timeline.report_start, ops)
        columns = {spec.model_id: spec.columns for spec in self.specs}
        return Session(self.folder.path, loop, self.features, columns, identity, tally), loop

    def fit_first_models(self, loop: Loop, on_model: Callable[[Finished], None] | None = None) -> None:
        """Fit the models that start the loop."""
        trees = start_models(self.zoo, self.specs, self.timeline.loop_start, on_model)
        loop.models = {model_id: Model(found) for model_id, found in trees.items()}

    def remaining(self, done: int | None) -> list[int]:
        """Eras of the loop after `done` (None: from its start), the live one last."""
        eras = list(self.features.store.index.select(self.timeline.loop_start, self.timeline.last_era))
        if self.live is not None:
            eras.append(self.timeline.live_era)
        return eras if done is None else [era for era in eras if era > done]

    @property
    def live(self) -> EraFrame | None:
        """The live rows; None where the data have none, or where the run ends before the data's newest era."""
        live = self.features.store.live()
        return None if live is None or live.index.first != self.timeline.live_era else live

    @property
    def results(self) -> ResultFiles:
        """Writes the run's result files."""
        model_ids, target = tuple(spec.model_id for spec in self.specs), self.config.data.target
        return ResultFiles(
            self.folder, self.features, model_ids, self.timeline, target, self.backend.ops, self.known_at
        )

    def _loop(self) -> Loop:
        config, store, ops = self.config, self.features.store, self.backend.ops
        pool = [GateModel(spec.model_id, spec.feature_set, spec.group) for spec in self.specs]
        places = {name: position for position, name in enumerate(store.columns)}
        cells = {
            # A member from outside saw the whole market for all we know.
            (spec.feature_set, spec.group): np.array(
                [places[name] for name in (store.columns if spec.given else spec.columns)], dtype=np.int64
            )
            for spec in self.specs
        }
        seed, device = derive_seed(config.seed, "gate"), self.backend.torch_device
        clock, columns = self.timeline.clock, self.neutral_columns
        return Loop(
            self.features,
            self.specs,
            gate=MetaLearner(config.gate, pool, lag=clock.score_lag, horizon=clock.horizon, seed=seed, device=device),
            context=ContextBuilder(pool, cells, ops, config.gate),
            updater=Updater(store.path, config, self.timeline, self.zoo, self.known_at),
            timeline=self.timeline,
            target=config.data.target,
            ops=ops,
            known_at=self.known_at,
            neutraliser=Neutraliser(columns, config.postprocess.proportion, ops) if columns else None,
            device=device,
        )


def neutral_columns(config: RunConfig, catalog: FeatureCatalog) -> tuple[str, ...]:
    """Features that the ensemble is neutralised to; empty where that is switched off.

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
    """Keep what the loop is made of, so that weekly steps need no features.json and no selection."""
    content = {"models": [dataclasses.asdict(spec) for spec in specs], "neutral_columns": list(neutral)}
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


class StoredOof:
    """Out-of-fold predictions read back from `oof.parquet`.

    Args:
        folder: the run folder.
        model_ids: the pool, in the order wanted.
    """

    def __init__(self, folder: Path, model_ids: Sequence[str]) -> None:
        self._table = pq.read_table(folder / OOF, columns=["era", *model_ids], memory_map=True)
        self._model_ids = tuple(model_ids)
        self.eras = sorted(int(era) for era in pc.unique(self._table["era"]).to_pylist())

    def __call__(self, era: int) -> NDArray[np.float32]:
        """Predictions of one era, float32 [M, N]."""
        rows = self._table.filter(pc.equal(self._table["era"], era_label(era)))
        return np.stack([rows[name].to_numpy().astype(np.float32, copy=False) for name in self._model_ids])
