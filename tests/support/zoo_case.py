"""A small zoo on made data, for the tests that run it in threads and on Dask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eravane.calendar.timeline import Timeline, plan_timeline
from eravane.core.config import RunConfig, parse_config
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.data.store.store import EraStore
from eravane.synth import SynthConfig, synthesise
from eravane.zoo.specs import ModelSpec, model_specs
from eravane.zoo.trainer import Zoo

TARGETS = ["target_ender_20", "target_ender_60"]
SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"feature_sets": ["small", "all"], "target": "target_ender_20"},
    "time": {"loop_start": 42},
    "zoo": {
        "learner": "xgboost",
        "targets": TARGETS, "seeds": 2, "trees": 6, "fold_eras": 10, "folds": 2, "minimum_eras": 2,
        "params": {"max_depth": 3, "eta": 0.2, "colsample_bytree": 0.5},
    },
    "compute": {"device": "cpu"},
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A store and what a zoo on it needs."""

    data: Path
    store: EraStore
    config: RunConfig
    timeline: Timeline
    specs: list[ModelSpec]

    def zoo(self, cache: Path | None = None, **compute: Any) -> Zoo:
        """A zoo with other settings of [compute]."""
        config = configured(compute=compute)
        return Zoo(self.store.path, config, self.timeline, xgboost_device="cpu", cache=cache)

    def features(self) -> Features:
        """The store's features."""
        return Features.open(self.store.path, self.config.prepare)


def configured(**changes: dict[str, Any]) -> RunConfig:
    """The settings with some replaced."""
    sections = dict.fromkeys([*SETTINGS, *changes])
    return parse_config({name: SETTINGS.get(name, {}) | changes.get(name, {}) for name in sections})


def make_case(folder: Path, **changes: dict[str, Any]) -> Case:
    """Synthesise 56 eras of about 60 rows and 20 features, ingest them and plan the folds."""
    data = synthesise(
        folder / "data",
        SynthConfig(main_target="target_ender_20", eras=56, rows=60, features=20, groups=3, seed=5, snr=0.5),
    )
    config = configured(**changes)
    catalog = FeatureCatalog.load(data / "features.json", sets=config.data.feature_sets, groups=None)
    store = ingest(data, folder / "store", columns=list(catalog.columns))
    timeline = plan_timeline(config, store.index, 52)
    return Case(data, store, config, timeline, model_specs(catalog, config))


def blocks_of(zoo: Zoo, specs: list[ModelSpec], on_model: Any = None) -> dict[tuple[str, int], bytes]:
    """Every booster of every fold, by (model, newest training era)."""
    return {
        (name, task.train_last): block
        for task, trained in zoo.run(zoo.fold_tasks(specs), on_model)
        for name, block in trained.blocks.items()
    }
