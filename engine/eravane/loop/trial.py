"""Which update rule serves a run: every rule is tried on one base model, and the pool follows the one that did best.

What a rule is worth is the discounted mean CORR of its model over loop eras whose labels are due, so that the choice
for an era rests on nothing newer than the weights of that era do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from eravane.core.config import LoopConfig
from eravane.core.errors import ConfigError
from eravane.learners.registry import predict
from eravane.loop.updates import Model, Updater
from eravane.scoring.ensemble import one_era
from eravane.zoo.specs import ModelSpec

# The first is followed until there is evidence.
RULES: tuple[Literal["none", "refit", "append", "leaves", "refit+leaves"], ...] = (
    "refit+leaves",
    "refit",
    "leaves",
    "append",
    "none",
)


class Trial:
    """Every update rule on one base model, side by side.

    Args:
        spec: the model.
        updaters: rule -> what updates by it; the first is followed until half a half-life of eras is resolved.
        half_life: of the scores, in resolved eras.

    Attributes:
        spec: the model.
        models: rule -> the model as that rule has kept it; `begin` or `restore` fills them.
    """

    def __init__(self, spec: ModelSpec, updaters: Mapping[str, Updater], half_life: float) -> None:
        self.spec, self.models = spec, dict[str, Model]()
        self._updaters, self._half_life = dict(updaters), half_life
        self._score_R, self._weight, self._resolved = np.zeros(len(updaters)), 0.0, 0
        self._pending: dict[int, NDArray[np.float32]] = {}
        self._boosters: dict[str, list[Any]] = {}

    def begin(self, model: Model) -> None:
        """Start all rules from one model."""
        self.models = dict.fromkeys(self._updaters, model)

    @property
    def rules(self) -> tuple[str, ...]:
        """What is tried."""
        return tuple(self._updaters)

    @property
    def rule(self) -> str:
        """The rule that did best so far; of equal ones the first."""
        tried = self._resolved >= math.ceil(self._half_life / 2)
        return self.rules[int(np.argmax(self._score_R)) if tried else 0]

    @property
    def updater(self) -> Updater:
        """What updates by the best rule."""
        return self._updaters[self.rule]

    @property
    def scores(self) -> dict[str, float]:
        """Discounted mean CORR per rule; empty before the first era is resolved."""
        return dict(zip(self.rules, (self._score_R / self._weight).tolist(), strict=True)) if self._weight else {}

    def update(self, era: int) -> None:
        """Update the model of every rule that has an update due before `era`."""
        name = self.spec.model_id
        for rule, updater in self._updaters.items():
            if updater.due(era):
                self.models[rule] = updater.update([self.spec], {name: self.models[rule]}, era)[name]
                self._boosters.pop(rule, None)

    def predict(self, era: int, values_CN: NDArray[Any]) -> None:
        """Keep what every rule's model says of an era, from the features of `spec` [C, N], until it is scored."""
        said: list[NDArray[np.float32]] = []
        for rule, model in self.models.items():
            if rule not in self._boosters:
                self._boosters[rule] = model.trees.boosters()
            said.append(predict(self._boosters[rule], values_CN))
        self._pending[era] = np.stack(said)

    def resolve(self, era: int, label_N: NDArray[np.float32], ops: Any) -> None:
        """Score an era whose labels are due, with NaN where a row has none; eras before it are no longer awaited."""
        said_RN = self._pending.get(era)
        self._pending = {later: values for later, values in self._pending.items() if later > era}
        if said_RN is None:
            return
        keep = 0.5 ** (1 / self._half_life)
        corr_R = ops.numerai_corr(said_RN, label_N, one_era(label_N.size))[:, 0]
        self._score_R = keep * self._score_R + np.nan_to_num(corr_R)
        self._weight = keep * self._weight + 1.0
        self._resolved += 1

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Everything but trees: arrays (for safetensors) and JSON-able values."""
        arrays = {str(era): said_RN for era, said_RN in self._pending.items()}
        facts = {"scores": self._score_R.tolist(), "weight": self._weight, "resolved": self._resolved}
        return arrays, facts

    def restore(
        self, models: Mapping[str, Model], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
    ) -> None:
        """Take over a state."""
        self.models = {rule: models[rule] for rule in self._updaters}
        self._score_R, self._weight, self._resolved = np.array(facts["scores"]), facts["weight"], facts["resolved"]
        self._pending = {era: arrays[str(era)] for era in sorted(map(int, arrays))}
        self._boosters.clear()


def make_trial(specs: Sequence[ModelSpec], config: LoopConfig, updater_of: Callable[[LoopConfig], Updater]) -> Trial:
    """A trial on the model of middle width, of all rules that the learner can follow.

    Args:
        specs: the pool.
        config: the [loop] section.
        updater_of: makes the updater of a rule.

    Raises:
        ConfigError: no model of the pool was trained here.
    """
    own = sorted((spec for spec in specs if not spec.given), key=lambda spec: len(spec.columns))
    if not own:
        raise ConfigError('loop.update "auto" needs a base model of the run\'s own; every selected one is from outside')
    updaters: dict[str, Updater] = {}
    for rule in RULES:
        try:
            updaters[rule] = updater_of(dataclasses.replace(config, update=rule))
        except ConfigError:
            continue  # a rule that this learner cannot follow
    return Trial(own[len(own) // 2], updaters, config.auto_half_life)
