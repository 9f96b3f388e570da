"""A model whose trees come before the new ones: `xgb_model`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import xgboost as xgb
from sklearn.exceptions import NotFittedError

from eravane.core.arrays import Float32s
from eravane.core.errors import ConfigError
from eravane.learners.frames import Frame, blocks
from eravane.learners.objectives import LOGISTIC, Objective
from eravane.learners.settings import NotGrownError
from eravane.learners.ubj import dump, load, weighs_trees


class Earlier:
    """A booster that is to grow on.

    Args:
        model: a booster, a fitted estimator that has one, or a file.
        name: of the argument, for messages.

    Raises:
        ConfigError: it is something else, or was not fitted.
    """

    def __init__(self, model: object, name: str = "xgb_model") -> None:
        self._name = name
        if isinstance(model, str | Path):
            try:
                model = xgb.Booster(model_file=str(model))
            except xgb.core.XGBoostError as error:
                raise ConfigError(f"{str(model)!r} is no model of XGBoost") from error
        elif hasattr(model, "get_booster"):
            try:
                model = model.get_booster()
            except NotFittedError as error:
                raise ConfigError(f"{self._name}: {type(model).__name__} was not fitted") from error
        if not isinstance(model, xgb.Booster):
            raise ConfigError(f"{self._name}: expected a booster, an estimator or a file, given {type(model).__name__}")
        self.block = bytes(model.save_raw("ubj"))

    @cached_property
    def booster(self) -> xgb.Booster:
        """A booster of its own; the one that was given stays as it is."""
        return xgb.Booster(model_file=bytearray(self.block))

    @cached_property
    def rounds(self) -> int:
        """Its rounds."""
        return int(self.booster.num_boosted_rounds())

    def check(self, frame: Frame, targets: int) -> None:
        """Raises ConfigError where it has other features or targets than these."""
        learner = load(self.block)["learner"]
        kind, known = learner["gradient_booster"]["name"], learner["learner_model_param"]
        if kind == "gblinear":
            raise ConfigError(f"{self._name}: expected trees, given gblinear")
        for name, what, here in (("num_feature", "features", frame.width), ("num_target", "targets", targets)):
            if int(known[name]) != here:
                raise ConfigError(f"{self._name}: it has {known[name]} {what}, these rows have {here}")
        if int(known["num_class"]) > 1:
            raise ConfigError(f"{self._name}: it is a classifier of {known['num_class']} classes")
        names = tuple(learner["feature_names"])
        for place, (one, other) in enumerate(zip(names, frame.names, strict=False)):
            if one != other:
                raise ConfigError(f"{self._name}: its feature {place} is {one!r}, that of these rows is {other!r}")

    def check_growing(self, objective: Objective) -> None:
        """Raises NotGrownError where only XGBoost goes on from it."""
        learner = load(self.block)["learner"]
        name = learner["objective"]["name"]
        if weighs_trees(learner["gradient_booster"]):
            raise NotGrownError(f"{self._name} is a model with dropout, whose trees the level grower does not weigh")
        if "trees" not in learner["gradient_booster"]["model"]:
            raise NotGrownError(f"{self._name} has trees of several targets, which are not the level grower's")
        if (name in LOGISTIC) != objective.probabilities:
            raise NotGrownError(f"{self._name} is of objective {name}, which {objective.name} does not go on from")

    def margins(self, frame: Frame, targets: int, margin: Float32s | None = None) -> Float32s:
        """Its output, float32 [B, N]; on top of `margin`, [N] or [N, B], where that is given."""
        margin_BN = np.empty((targets, frame.rows), dtype=np.float32)
        for rows, x_NC in blocks(frame):
            base = None if margin is None else margin[rows]
            found = self.booster.inplace_predict(x_NC, predict_type="margin", validate_features=False, base_margin=base)
            margin_BN[:, rows] = np.atleast_2d(np.asarray(found).T)
        return margin_BN

    def followed_by(self, block: bytes) -> bytes:
        """Its trees and behind them those of another model, under the attributes and the objective of that."""
        old, new = load(self.block)["learner"], load(block)["learner"]
        into, source = (learner["gradient_booster"]["model"] for learner in (old, new))
        before = len(into["trees"])
        for number, tree in enumerate(source["trees"], before):
            tree["id"] = number
        into["trees"] = [*into["trees"], *source["trees"]]
        into["tree_info"] = [*(int(group) for group in into["tree_info"]), *source["tree_info"]]
        ends = [before + place for place in source["iteration_indptr"][1:]]
        into["iteration_indptr"] = [*(int(place) for place in into["iteration_indptr"]), *ends]
        into["gbtree_model_param"]["num_trees"] = str(len(into["trees"]))
        old["attributes"], old["objective"] = new["attributes"], new["objective"]
        return dump({"learner": old, "version": load(block)["version"]})


def starting_at(
    earlier: Earlier | None, frame: Frame, start: Sequence[np.float32], margin: Float32s | None = None
) -> Float32s:
    """Outputs before the new trees, float32 [B, N]: those of the earlier model, what the user gives, or intercepts."""
    if earlier is not None:
        return earlier.margins(frame, len(start), margin)
    if margin is not None:
        return np.array(np.atleast_2d(margin.T), dtype=np.float32, order="C")
    return np.repeat(np.array(start, dtype=np.float32)[:, None], frame.rows, axis=1)
