"""Callbacks of XGBoost and of LightGBM, and the model as they see it while trees grow."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import xgboost as xgb

from eravane.core.errors import ConfigError

History = Mapping[str, Mapping[str, list[float]]]
RISING = ("auc", "map", "ndcg", "pre")
"""How the names of XGBoost's metrics begin of which more is better."""


class SoFar:
    """The model as callbacks see it: a booster of the trees so far, made when they ask for it.

    Args:
        grown: the new trees by round; grows.
        model_of: the booster of these.
        learn_at: changes the factor of the leaf values for the trees that are still to grow.
        before: rounds of an earlier model.
    """

    def __init__(
        self,
        grown: list[Any],
        model_of: Callable[[list[Any]], xgb.Booster],
        learn_at: Callable[[float], None],
        before: int,
    ) -> None:
        self._grown, self._model_of, self._learn_at = grown, model_of, learn_at
        self._made: tuple[int, xgb.Booster] | None = None
        self.before = before
        self.rising: dict[str, bool] = {}
        """Metric -> whether more of it is better."""
        self.kept: dict[str, str] = {}
        """Attributes that were set."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        """XGBoost's own callbacks ask whether it is a booster."""
        return xgb.Booster

    def _booster(self) -> xgb.Booster:
        if self._made is None or self._made[0] != len(self._grown):
            self._made = len(self._grown), self._model_of(self._grown)
        self._made[1].set_attr(**self.kept)
        return self._made[1]

    def num_boosted_rounds(self) -> int:
        """Rounds so far, those of an earlier model too."""
        return self.before + len(self._grown)

    def set_attr(self, **attributes: object) -> None:
        """Keep attributes for the model."""
        self.kept |= {name: str(value) for name, value in attributes.items() if value is not None}

    def attr(self, name: str) -> str | None:
        """An attribute that was set."""
        return self.kept.get(name)

    def set_param(self, params: Any, value: Any = None) -> None:
        """Change the learning rate of the trees to come.

        Raises:
            ConfigError: another parameter is to change.
        """
        changes = {params: value} if isinstance(params, str) else dict(params)
        for name, changed in changes.items():
            if name not in ("learning_rate", "eta"):
                raise ConfigError(f"callbacks: only learning_rate changes while trees grow, given {name!r}")
            self._learn_at(float(changed))

    reset_parameter = set_param
    """As LightGBM names it."""

    @property
    def boosters(self) -> list[SoFar]:
        """LightGBM's callbacks ask the models of a cross-validation for theirs."""
        return [self]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._booster(), name)

    def __getitem__(self, rounds: object) -> Any:
        return self._booster()[rounds]


class Callbacks:
    """All callbacks, asked in turn.

    Args:
        given: of the user.
        rounds: that are to be grown.
        model: as they see it.
        history: set -> metric -> a value per round; grows.

    Raises:
        ConfigError: one of them is no callback.
    """

    def __init__(self, given: object, rounds: int, model: SoFar, history: History) -> None:
        self._all, self._model, self._history = callbacks_of(given, rounds), model, history

    def __bool__(self) -> bool:
        return bool(self._all)

    def begin(self) -> None:
        """Before the first round."""
        for one in self._all:
            one.before_training(self._model)

    def before(self, turn: int) -> bool:
        """Before a round; returns whether training ends."""
        answers = [one.before_iteration(self._model, turn, self._history) for one in self._all]  # every one is asked
        return any(answers)

    def after(self, turn: int) -> bool:
        """After a round; returns whether training ends."""
        answers = [one.after_iteration(self._model, turn, self._history) for one in self._all]
        return any(answers)

    def end(self) -> int | None:
        """After the last round; returns how many of the new rounds are kept where a callback cut the model."""
        kept = None
        for one in self._all:
            found = one.after_training(self._model)
            if isinstance(found, xgb.Booster) and found is not self._model:
                kept = int(found.num_boosted_rounds()) - self._model.before
                self._model.set_attr(**found.attributes())
        return kept


def callbacks_of(given: object, rounds: int) -> list[xgb.callback.TrainingCallback]:
    """Callbacks as XGBoost has them, for so many rounds; functions are LightGBM's.

    Raises:
        ConfigError: an entry is neither.
    """
    if given is None:
        return []
    if not isinstance(given, list | tuple | set):
        raise ConfigError(f"callbacks: expected a list of callbacks, given {type(given).__name__}")
    found = list[xgb.callback.TrainingCallback]()
    for one in sorted(given, key=lambda one: getattr(one, "order", 0) if callable(one) else 0):
        if isinstance(one, xgb.callback.TrainingCallback):
            found.append(one)
        elif callable(one) and not isinstance(one, type):
            found.append(_OfLightGBM(one, rounds))
        else:
            raise ConfigError(f"callbacks: expected XGBoost's or LightGBM's, given {one!r}")
    return found


class _Environment(NamedTuple):
    """The argument that LightGBM passes to a callback."""

    model: Any
    params: dict[str, Any]
    iteration: int
    begin_iteration: int
    end_iteration: int
    evaluation_result_list: Sequence[Any]


class _OfLightGBM(xgb.callback.TrainingCallback):  # type: ignore[misc]
    """A callback of LightGBM among XGBoost's."""

    def __init__(self, function: Callable[[Any], object], rounds: int) -> None:
        super().__init__()
        self._function, self._rounds, self._first, self._params = function, rounds, 0, dict[str, Any]()

    def before_training(self, model: Any) -> Any:
        """Rounds of an earlier model come before those of this one."""
        self._first = model.num_boosted_rounds()
        return model

    def before_iteration(self, model: object, epoch: int, evals_log: History) -> bool:
        """Asks those that set parameters."""
        return self._ask(model, epoch, evals_log) if getattr(self._function, "before_iteration", False) else False

    def after_iteration(self, model: object, epoch: int, evals_log: History) -> bool:
        """Asks the others, such as early stopping."""
        return False if getattr(self._function, "before_iteration", False) else self._ask(model, epoch, evals_log)

    def _ask(self, model: Any, epoch: int, evals_log: History) -> bool:
        rising = getattr(model, "rising", {})
        value_of = getattr(
            sys.modules.get("lightgbm.callback"), "EvalResult", lambda *parts: parts
        )  # tuples before 4.7
        values = [
            value_of(name, metric, entries[-1], rising.get(metric, metric.startswith(RISING)))
            for name, of in evals_log.items() for metric, entries in of.items() if entries
        ]  # fmt: skip
        first, last = self._first, self._first + self._rounds
        try:
            self._function(_Environment(model, self._params, first + epoch, first, last, values))
        except Exception as error:
            if type(error).__name__ != "EarlyStopException":
                raise
            best = int(error.best_iteration)  # type: ignore[attr-defined]
            score = list(list(evals_log.values())[-1].values())[-1][best - first]
            model.set_attr(best_iteration=str(best), best_score=str(score))
            return True
        return False
