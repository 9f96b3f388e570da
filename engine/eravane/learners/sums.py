"""A booster's output as a sum of trees: the trees, what the sum starts from, and what the objective makes of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.core.arrays import Float32s
from eravane.learners.levels_model import Heading, written
from eravane.learners.ubj import JoinedTrees, dump, load, tree_model, tree_weights

# Objectives whose output is the sum of the trees, and whose intercept is added as it is.
PLAIN = tuple(f"reg:{loss}error" for loss in ("squared", "squaredlog", "pseudohuber", "absolute", "quantile"))
# Elsewhere a compiler may join the product of a tree's weight and its leaf with the sum, in one rounding.
ROUNDS_PRODUCTS = platform.machine() in ("x86_64", "AMD64")


@dataclass(frozen=True, eq=False)
class Ends:
    """Both ends of a sum of trees.

    Attributes:
        intercept: what the booster adds where it is given no margin.
        head: the booster on one column and without its trees, where its objective transforms the sum.
    """

    intercept: np.float32
    head: xgb.Booster | None = None

    @classmethod
    def of(cls, model: Mapping[str, Any]) -> Ends:
        """Those of a model."""
        learner = model["learner"]
        known = learner["learner_model_param"]
        if learner["objective"]["name"] in PLAIN:
            return cls(np.float32(float(known["base_score"].strip("[]"))))
        bare = load(written([], Heading(1, [0.0])))
        # Without trees, XGBoost takes an intercept that was fitted for one that is still to be fitted.
        described = {**known, "num_feature": "1", "boost_from_average": "0"}
        bare["learner"] |= {"objective": learner["objective"], "learner_model_param": described}
        head = xgb.Booster({"nthread": 1}, model_file=bytearray(dump({**bare, "version": list(model["version"])})))
        intercept = head.inplace_predict(np.zeros((1, 1), dtype=np.float32), predict_type="margin")
        return cls(np.float32(intercept[0]), head)

    def started(self, rows: int, margin_N: Float32s | None) -> Float32s:
        """A new array to which trees are added, float32 [N]: the margin; without one the intercept."""
        return np.full(rows, self.intercept, dtype=np.float32) if margin_N is None else margin_N.astype(np.float32)

    def predicted(self, total_N: Float32s) -> Float32s:
        """Predictions of the booster where its trees and the intercept add up to this, float32 [N]."""
        if self.head is None or not total_N.size:
            return total_N
        rows_N1 = np.zeros((total_N.size, 1), dtype=np.float32)
        predicted_N: Float32s = self.head.inplace_predict(rows_N1, base_margin=total_N)
        return predicted_N


@dataclass(frozen=True, eq=False)
class Summed:
    """A booster as a sum.

    Attributes:
        trees: their leaves are multiplied by the trees' weights, where there are some.
        ends: of the sum.
    """

    trees: JoinedTrees
    ends: Ends

    @classmethod
    def read(cls, block: bytes) -> Summed | None:
        """A booster from its UBJ; None where it is no sum for one target of trees with numeric splits."""
        model = load(block, joined=True)
        learner, grown = model["learner"], model["learner"]["gradient_booster"]
        known = learner["learner_model_param"]
        if grown["name"] not in ("gbtree", "dart") or known["num_target"] != "1" or int(known["num_class"]) > 1:
            return None
        trees, weight_T = tree_model(grown)["trees"], tree_weights(grown)
        if not isinstance(trees, JoinedTrees) or not trees.counts or trees.values["split_type"].any():
            return None
        if len(weight_T):
            if not ROUNDS_PRODUCTS:
                return None
            trees = _weighed(trees, np.asarray(weight_T, dtype=np.float32))
        return cls(trees, Ends.of(model))


def _weighed(trees: JoinedTrees, weight_T: Float32s) -> JoinedTrees:
    """Trees whose leaves are multiplied by weights, rounded to float32 as XGBoost rounds before it adds."""
    number_K = trees.values["split_conditions"].astype(np.float32)
    leaf_K = trees.values["left_children"] < 0
    number_K = np.where(leaf_K, number_K * np.repeat(weight_T, trees.counts), number_K)
    return replace(trees, values={**trees.values, "split_conditions": number_K})
