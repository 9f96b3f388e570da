"""Trees of the level grower as a model that XGBoost reads: its UBJ, byte for byte as XGBoost itself would save it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.zoo.ubj import dump
from eravane_kernels.growth import Tree

_NO_PARENT = 2**31 - 1


def to_ubj(trees: Sequence[Tree], columns: Sequence[str], base_score: float) -> bytes:
    """A booster of squared error from its trees.

    Args:
        trees: in the order of boosting; their leaves already hold eta.
        columns: names of the features, integers all of them.
        base_score: the intercept.
    """
    model = {
        "cats": {"enc": [], "feature_segments": _none("int32"), "sorted_idx": _none("int32")},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(len(trees) + 1)),
        "tree_info": [0] * len(trees),
        "trees": [_tree(number, tree, len(columns)) for number, tree in enumerate(trees)],
    }
    learner = {
        "attributes": {},
        "feature_names": list(columns),
        "feature_types": ["int"] * len(columns),
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": f"[{_scientific(base_score)}]",
            "boost_from_average": "0",
            "num_class": "0",
            "num_feature": str(len(columns)),
            "num_target": "1",
        },
        "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
    }
    return dump({"learner": learner, "version": [int(part) for part in xgb.__version__.split(".")[:3]]})


def _tree(number: int, tree: Tree, width: int) -> dict[str, Any]:
    leaf_K = tree.left_K < 0
    return {
        "base_weights": tree.weight_K,
        "categories": _none("int32"),
        "categories_nodes": _none("int32"),
        "categories_segments": _none("int64"),
        "categories_sizes": _none("int64"),
        "default_left": tree.missing_left_K.astype(np.uint8),
        "id": number,
        "left_children": tree.left_K,
        "loss_changes": tree.gain_K,
        "parents": np.where(tree.parent_K < 0, _NO_PARENT, tree.parent_K).astype(np.int32),
        "right_children": tree.right_K,
        "split_conditions": np.where(leaf_K, tree.weight_K, tree.below_K).astype(np.float32),
        "split_indices": tree.column_K,
        "split_type": np.zeros(len(leaf_K), dtype=np.uint8),
        "sum_hessian": tree.hessian_K,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(width),
            "num_nodes": str(len(leaf_K)),
            "size_leaf_vector": "1",
        },
    }


def _none(dtype: str) -> np.ndarray[Any, Any]:
    return np.empty(0, dtype=dtype)


def _scientific(value: float) -> str:
    """A short decimal as XGBoost writes it: 0.5 is 5E-1."""
    mantissa, _, power = f"{np.format_float_scientific(value, trim='-', exp_digits=1)}".partition("e")
    return f"{mantissa}E{int(power)}"
