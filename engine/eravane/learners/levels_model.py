"""Trees of the level grower as a model that XGBoost reads: its UBJ, byte for byte as XGBoost itself would save it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xgboost as xgb

from eravane.learners.ubj import Written, array_head, dump, list_head
from eravane_kernels.growth import Tree

_NO_PARENT = 2**31 - 1
_HOLE = b"<values of a tree>"


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
        "trees": _written(trees, len(columns)),
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


def _written(trees: Sequence[Tree], width: int) -> Written:
    """The list of trees: the values of all of them are joined and made big-endian, and then cut by trees."""
    if not trees:
        return Written(dump([]))
    leaf_K, parent_K = _joined(trees, "left_K") < 0, _joined(trees, "parent_K")
    weight_K = _joined(trees, "weight_K")
    values = {
        "base_weights": weight_K,
        "default_left": _joined(trees, "missing_left_K").astype(np.uint8),
        "id": None,
        "left_children": _joined(trees, "left_K"),
        "loss_changes": _joined(trees, "gain_K"),
        "parents": np.where(parent_K < 0, np.int32(_NO_PARENT), parent_K),
        "right_children": _joined(trees, "right_K"),
        "split_conditions": np.where(leaf_K, weight_K, _joined(trees, "below_K").astype(np.float32)),
        "split_indices": _joined(trees, "column_K"),
        "sum_hessian": _joined(trees, "hessian_K"),
    }
    raw = [
        None if value is None else value.astype(value.dtype.newbyteorder(">")).tobytes() for value in values.values()
    ]
    sizes = [0 if value is None else value.itemsize for value in values.values()]
    parts, begin = [list_head(len(trees))], 0
    for number, tree in enumerate(trees):
        end = begin + len(tree.left_K)
        *before, last = _around(end - begin, width)
        for constant, values_raw, size in zip(before, raw, sizes, strict=True):
            parts += constant, dump(number) if values_raw is None else values_raw[begin * size : end * size]
        parts.append(last)
        begin = end
    return Written(b"".join(parts))


@lru_cache(1024)
def _around(nodes: int, width: int) -> tuple[bytes, ...]:
    """What stands before, between and behind the values of a tree of so many nodes."""
    numbers, truths, links = (Written(array_head(kind, nodes) + _HOLE) for kind in ("f4", "u1", "i4"))
    tree = {
        "base_weights": numbers,
        "categories": _none("int32"),
        "categories_nodes": _none("int32"),
        "categories_segments": _none("int64"),
        "categories_sizes": _none("int64"),
        "default_left": truths,
        "id": Written(_HOLE),
        "left_children": links,
        "loss_changes": numbers,
        "parents": links,
        "right_children": links,
        "split_conditions": numbers,
        "split_indices": links,
        "split_type": np.zeros(nodes, dtype=np.uint8),
        "sum_hessian": numbers,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(width),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
    }
    return tuple(dump(tree).split(_HOLE))


def _joined(trees: Sequence[Tree], name: str) -> np.ndarray[Any, Any]:
    return np.concatenate([getattr(tree, name) for tree in trees])


def _none(dtype: str) -> np.ndarray[Any, Any]:
    return np.empty(0, dtype=dtype)


def _scientific(value: float) -> str:
    """A short decimal as XGBoost writes it: 0.5 is 5E-1."""
    mantissa, _, power = f"{np.format_float_scientific(value, trim='-', exp_digits=1)}".partition("e")
    return f"{mantissa}E{int(power)}"
