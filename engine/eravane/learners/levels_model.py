"""Trees of the level grower as a model that XGBoost reads: its UBJ, byte for byte as XGBoost itself would save it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import xgboost as xgb

from eravane.learners.ubj import Written, array_head, dump, list_head
from eravane_kernels.growth import Tree

_NO_PARENT = 2**31 - 1
_HOLE = b"<values of a tree>"


@dataclass(frozen=True, eq=False)
class Heading:
    """Facts of a model other than its trees.

    Attributes:
        width: features.
        base_scores: the intercept of every target.
        names, types: of the features; empty where they have none.
        objective: XGBoost's name of it.
        fitted: whether the intercepts were fitted, not given.
        cut_CB: float32 [C, 6], the value of a split below each level; None where levels are their own values.
        attributes: of the booster.
    """

    width: int
    base_scores: Sequence[float | np.floating[Any]]
    names: Sequence[str] = ()
    types: Sequence[str] = ()
    objective: str = "reg:squarederror"
    fitted: bool = False
    cut_CB: npt.NDArray[np.float32] | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def to_ubj(trees: Sequence[Tree], columns: Sequence[str], base_score: float) -> bytes:
    """A booster of squared error on named columns of levels.

    Args:
        trees: in the order of boosting; their leaves already hold eta.
        columns: names of the features, integers all of them.
        base_score: the intercept.
    """
    return written(trees, Heading(len(columns), [base_score], list(columns), ["int"] * len(columns)))


def written(trees: Sequence[Tree], heading: Heading) -> bytes:
    """A booster from its trees: those of a round side by side, in the order of the targets."""
    targets = len(heading.base_scores)
    model = {
        "cats": {"enc": [], "feature_segments": _none("int32"), "sorted_idx": _none("int32")},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(trees))},
        "iteration_indptr": list(range(0, len(trees) + 1, targets)),
        "tree_info": [place % targets for place in range(len(trees))],
        "trees": _written(trees, heading.width, heading.cut_CB),
    }
    learner = {
        "attributes": dict(heading.attributes),
        "feature_names": list(heading.names),
        "feature_types": list(heading.types),
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": f"[{','.join(map(scientific, heading.base_scores))}]",
            "boost_from_average": str(int(heading.fitted)),
            "num_class": "0",
            "num_feature": str(heading.width),
            "num_target": str(targets),
        },
        "objective": {"name": heading.objective, "reg_loss_param": {"scale_pos_weight": "1"}},
    }
    return dump({"learner": learner, "version": [int(part) for part in xgb.__version__.split(".")[:3]]})


def _written(trees: Sequence[Tree], width: int, cut_CB: npt.NDArray[np.float32] | None) -> Written:
    """The list of trees: the values of all of them are joined and made big-endian, and then cut by trees."""
    if not trees:
        return Written(dump([]))
    leaf_K, parent_K = _joined(trees, "left_K") < 0, _joined(trees, "parent_K")
    weight_K, column_K, below_K = (_joined(trees, name) for name in ("weight_K", "column_K", "below_K"))
    cut_K = below_K.astype(np.float32) if cut_CB is None else cut_CB[column_K, below_K]
    values = {
        "base_weights": weight_K,
        "default_left": _joined(trees, "missing_left_K").astype(np.uint8),
        "id": None,
        "left_children": _joined(trees, "left_K"),
        "loss_changes": _joined(trees, "gain_K"),
        "parents": np.where(parent_K < 0, np.int32(_NO_PARENT), parent_K),
        "right_children": _joined(trees, "right_K"),
        "split_conditions": np.where(leaf_K, weight_K, cut_K),
        "split_indices": column_K,
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
    """Bytes before, between and behind the values of a tree of `nodes` nodes."""
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


def scientific(value: float | np.floating[Any]) -> str:
    """A short decimal as XGBoost writes it: 0.5 is 5E-1."""
    mantissa, _, power = f"{np.format_float_scientific(value, trim='-', exp_digits=1)}".partition("e")
    return f"{mantissa}E{int(power)}"
