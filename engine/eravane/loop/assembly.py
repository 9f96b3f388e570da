"""Puts a loop together: the same for a backtest, a resumed run, a weekly step and a replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from eravane.backend import Backend
from eravane.calendar.clock import KnownAt
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig
from eravane.core.seeds import derive_seed
from eravane.data.features import Features
from eravane.gate.context import ContextBuilder
from eravane.gate.facts import OutsideFacts
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import GateModel
from eravane.loop.loop import Loop
from eravane.loop.updates import Updater
from eravane.scoring.neutralization import Neutraliser
from eravane.scoring.payout import PayoutRule
from eravane.zoo.specs import ModelSpec
from eravane.zoo.trainer import Zoo


def make_loop(
    config: RunConfig,
    features: Features,
    timeline: Timeline,
    specs: tuple[ModelSpec, ...],
    zoo: Zoo,
    backend: Backend,
    neutral_columns: tuple[str, ...],
    known_at: KnownAt,
    payout: PayoutRule,
) -> Loop:
    """A loop before its first era, without models.

    Args:
        config: the run's configuration.
        features: the store's prepared features and labels.
        timeline: periods and lags.
        specs: the selected base models.
        zoo: trains them.
        backend: the device.
        neutral_columns: features that the ensemble is neutralised to; empty for none.
        known_at: labels that arrived later than the lags.
        payout: what is paid.
    """
    store, ops = features.store, backend.ops
    pool = [GateModel(spec.model_id, spec.feature_set, spec.group) for spec in specs]
    places = {name: position for position, name in enumerate(store.columns)}
    cells = {
        # A member from outside saw the whole market for all we know.
        (spec.feature_set, spec.group): np.array(
            [places[name] for name in (store.columns if spec.given else spec.columns)], dtype=np.int64
        )
        for spec in specs
    }
    seed, device = derive_seed(config.seed, "gate"), backend.torch_device
    clock, columns = timeline.clock, neutral_columns
    lags = {"lag": clock.score_lag, "horizon": clock.horizon}
    facts = OutsideFacts.read(Path(config.gate.facts), config.gate.facts_lag) if config.gate.facts else None
    return Loop(
        features,
        specs,
        gate=MetaLearner(config.gate, pool, **lags, seed=seed, device=device, aim=config.aim, payout=payout),
        context=ContextBuilder(pool, cells, ops, config.gate, facts),
        updater=Updater(store.path, config, timeline, zoo, known_at),
        timeline=timeline,
        target=config.data.target,
        ops=ops,
        known_at=known_at,
        neutraliser=Neutraliser(columns, config.postprocess.proportion, ops) if columns else None,
        device=device,
    )
