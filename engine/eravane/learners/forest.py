"""XGBoost's trees evaluated without XGBoost: on integer levels on the host, on levels and floats on a GPU.

On the host trees are unfolded into complete ones, which predicts several times faster: rows are held against every
split of shallow trees at once, and walked down deep ones in blocks. On a GPU rows go from node to node. What an
objective makes of the sum is computed by XGBoost, from the sum alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from eravane.backend.choice import backend_of
from eravane.backend.protocol import taken
from eravane.core.arrays import Float32s, Values, on_host
from eravane.learners.sums import Ends, Summed
from eravane.learners.ubj import JoinedTrees, load, weighs_trees
from eravane_kernels.cpu import walk
from eravane_kernels.cpu.forest import DEEPEST, add_leaves_at
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.spec.forest import LEAF, check_nodes

NODE_BYTES = 16
"""Of a node on a GPU."""
DEEPEST_PLANNED = 12
"""Depth of trees that have no limit, as they are planned."""


def device_bytes(trees: int, params: Mapping[str, Any]) -> int:
    """Most bytes that trees take on a GPU while they predict.

    Args:
        trees: of all models that predict.
        params: XGBoost's; of depth and leaves alone.
    """
    leaves = 1 << (int(params.get("max_depth", 0)) or DEEPEST_PLANNED)
    leaves = min(leaves, int(params.get("max_leaves", 0)) or leaves)
    return trees * (2 * leaves - 1) * NODE_BYTES


class Predictor:
    """A model of one thread that evaluates its trees itself on a GPU, and on integer levels; else XGBoost does.

    Predictions are those of XGBoost on a CPU either way. XGBoost loads the model where it is first needed: that takes
    longer than reading and unfolding the trees. Attributes beyond these are those of its booster.

    Args:
        block: UBJ bytes.
    """

    def __init__(self, block: bytes) -> None:
        self._block = block

    @cached_property
    def booster(self) -> xgb.Booster:
        """The model as XGBoost loads it."""
        return xgb.Booster({"nthread": 1}, model_file=bytearray(self._block))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying asks for these before there is a block
            raise AttributeError(name)
        return getattr(self.booster, name)

    def output(self, values_CN: Values | LevelColumns) -> Float32s:
        """Predictions of the booster for int8 or float32 columns [C, N], in the order of training; float32 [N].

        Levels are read where they lie. Columns on a GPU are predicted there where trees have numeric splits and one
        target, on the host otherwise; the output lies on the host.
        """
        if (found := self._unfolded(values_CN, None)) is not None:
            return found[1].predicted(found[0])
        return self._by_xgboost(values_CN, None, "value")

    def margin(self, values_CN: Values, margin_N: Float32s | None = None) -> Float32s:
        """The sum of the trees, float32 [N].

        Args:
            values_CN: int8 or float32 [C, N].
            margin_N: float32 [N], what the trees are added to, one after the other (None: the intercept).
        """
        if (found := self._unfolded(values_CN, margin_N)) is not None:
            return found[0]
        return self._by_xgboost(values_CN, margin_N, "margin")

    def _by_xgboost(self, values_CN: Values | LevelColumns, margin_N: Float32s | None, kind: str) -> Float32s:
        rows_NC = (values_CN.matrix() if isinstance(values_CN, LevelColumns) else on_host(values_CN)).T
        predicted_N: Float32s
        if self._weighed:
            # Up to XGBoost 3.2 `inplace_predict` of trees with weights adds a margin once for every tree.
            matrix = xgb.DMatrix(rows_NC, base_margin=margin_N, nthread=1)
            predicted_N = self.booster.predict(matrix, output_margin=kind == "margin", validate_features=False)
        else:
            how = {"predict_type": kind, "validate_features": False, "base_margin": margin_N}
            predicted_N = self.booster.inplace_predict(rows_NC, **how)
        return predicted_N if len(rows_NC) else predicted_N.reshape(0)  # XGBoost 3.4 gives none the shape (0, 0)

    @cached_property
    def _weighed(self) -> bool:
        return weighs_trees(load(self._block, joined=True)["learner"]["gradient_booster"])

    @cached_property
    def _forest(self) -> Forest | None:
        return Forest.read(self._block)

    @cached_property
    def _there(self) -> DeviceForest | None:
        return DeviceForest.read(self._block)

    def _unfolded(self, values_CN: Values | LevelColumns, margin_N: Float32s | None) -> tuple[Float32s, Ends] | None:
        """The sum of the trees without XGBoost, and its ends; None where XGBoost has to add it up."""
        if hasattr(values_CN, "get"):  # an array of a GPU
            return self._on_device(values_CN, margin_N)
        if not isinstance(values_CN, LevelColumns) and values_CN.dtype != np.int8:
            return None
        if (forest := self._forest) is None:
            return None
        total_N = (
            forest.predict_at(values_CN, margin_N)
            if isinstance(values_CN, LevelColumns)
            else forest.predict(values_CN, margin_N)
        )
        return None if total_N is None else (total_N, forest.ends)

    def _on_device(self, values_CN: Any, margin_N: Float32s | None) -> tuple[Float32s, Ends] | None:
        """The sum of the trees on a GPU, and its ends."""

        def summed() -> tuple[Float32s, Ends] | None:
            forest = self._there
            return None if forest is None else (forest.predict(values_CN, margin_N), forest.ends)

        return taken(summed, f"trees and predictions of {values_CN.shape[1]} rows", partial(backend_of, "cuda"))


@dataclass(frozen=True, eq=False)
class Forest:
    """The trees of a booster, unfolded.

    Attributes:
        column_TK, below_TK: int32 and int8 [T, 2^D - 1], the splits of complete trees of depth D, level by level.
        leaf_TL: float32 [T, 2^D].
        ends: what the sum starts from, and what is made of it.
    """

    column_TK: NDArray[np.int32]
    below_TK: NDArray[np.int8]
    leaf_TL: Float32s
    ends: Ends

    @classmethod
    def of(cls, booster: xgb.Booster) -> Forest | None:
        """The trees of a booster; None where it is no sum of shallow trees with numeric splits."""
        return cls.read(bytes(booster.save_raw("ubj")))

    @classmethod
    def read(cls, block: bytes) -> Forest | None:
        """The trees of a booster from its UBJ."""
        if (found := Summed.read(block)) is None or (nodes := Nodes.of(found.trees)).depth > walk.DEEPEST:
            return None
        column_TK, condition_TK, _, leaf_TL = nodes.unfolded()
        # An integer lies below a number where it lies below the next integer.
        below_TK = np.clip(np.ceil(condition_TK), -128, 127).astype(np.int8)
        return cls(column_TK, below_TK, leaf_TL, found.ends)

    def predict(self, values_CN: Any, margin_N: Float32s | None = None) -> Float32s | None:
        """XGBoost's sum, to the bit: float32 [N]; None where deep trees do not take these values.

        Args:
            values_CN: int8 [C, N]; copied where a column is not contiguous.
            margin_N: float32 [N], what the trees are added to (None: the intercept).
        """
        rows = values_CN.shape[1]
        if rows > 1 and values_CN.strides[1] != 1:  # rows lie side by side
            values_CN = np.ascontiguousarray(values_CN)
        return self.predict_at(LevelColumns.unchecked(values_CN), margin_N)

    def predict_at(self, columns: LevelColumns, margin_N: Float32s | None = None) -> Float32s | None:
        """`predict` for columns where they lie."""
        total_N, address_SC = self.ends.started(columns.rows, margin_N), columns.address_SC
        if self.leaf_TL.shape[1] <= 2**DEEPEST:
            return add_leaves_at(address_SC, columns.row_S, self.column_TK, self.below_TK, self.leaf_TL, total_N)
        used_U, key_TK = self._keys
        if len(used_U) > walk.MOST_COLUMNS:
            return None
        fit = walk.walk(address_SC[:, used_U].copy(), columns.row_S, key_TK, self.leaf_TL, total_N)
        return total_N if fit else None

    @cached_property
    def _keys(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Columns that the trees split on, and the keys of the splits."""
        return keys_of(self.column_TK, self.below_TK, None)


@dataclass(frozen=True, eq=False)
class DeviceForest:
    """The trees of a booster on a GPU.

    Attributes:
        node_K4, root_T: as `eravane_kernels.spec.add_trees` takes them, on the device.
        width: columns that they were grown on.
        ends: what the sum starts from, and what is made of it.
    """

    node_K4: Any
    root_T: Any
    width: int
    ends: Ends

    @classmethod
    def read(cls, block: bytes) -> DeviceForest | None:
        """The trees of a booster from its UBJ; None where it is no sum of trees with numeric splits."""
        from eravane_kernels.cuda.runtime import upload

        if (found := Summed.read(block)) is None:
            return None
        node_K4, root_T = Nodes.of(found.trees).packed()
        width = int(node_K4[:, 0].max() >> 1) + 1
        check_nodes(node_K4, root_T, width)
        return cls(upload(node_K4), upload(root_T), width, found.ends)

    def predict(self, values_CN: Any, margin_N: Float32s | None = None) -> Float32s:
        """XGBoost's sum on a CPU, to the bit: float32 [N] on the host.

        Args:
            values_CN: int8 or float32 [C, N] on the device, NaN where missing; copied where a column is not contiguous.
            margin_N: float32 [N], what the trees are added to (None: the intercept).
        """
        from eravane_kernels import cuda
        from eravane_kernels.cuda.runtime import active, upload

        width, rows = values_CN.shape
        if width < self.width:
            raise ValueError(f"values_CN: expected at least {self.width} columns, given {width}")
        if rows > 1 and values_CN.strides[1] != values_CN.itemsize:  # rows lie side by side
            values_CN = active().xp.ascontiguousarray(values_CN)
        total_N = upload(self.ends.started(rows, margin_N))
        return cast(Float32s, on_host(cuda.add_trees(values_CN, self.node_K4, self.root_T, total_N)))


def keys_of(
    column_TK: NDArray[np.int32], below_TK: NDArray[np.int8], right_TK: NDArray[np.bool_] | None
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Columns that complete trees split on, int64 [U], and keys of the splits for `walk.walk` on these columns."""
    used_U, place_TK = np.unique(np.maximum(column_TK, 0), return_inverse=True)
    place_TK = np.where(column_TK < 0, -1, place_TK.reshape(column_TK.shape))
    return used_U.astype(np.int64), walk.keys(place_TK, below_TK, right_TK)


@dataclass(frozen=True, eq=False)
class Nodes:
    """The nodes of all trees, one tree after the other."""

    root_T: NDArray[np.int64]
    left_K: NDArray[np.int64]
    right_K: NDArray[np.int64]
    column_K: NDArray[np.int32]
    condition_K: NDArray[np.float64]
    left_missing_K: NDArray[np.bool_]

    @classmethod
    def of(cls, trees: JoinedTrees) -> Nodes:
        """The nodes of trees as `ubj.load` joins them."""
        count_T, values = np.array(trees.counts, dtype=np.int64), trees.values
        root_T = np.cumsum(count_T) - count_T
        shift_K = np.repeat(root_T, count_T)
        left_K, right_K = (values[name].astype(np.int64) for name in ("left_children", "right_children"))
        leaf_K = left_K < 0
        itself_K = np.arange(leaf_K.size)
        left_K = np.where(leaf_K, itself_K, left_K + shift_K)
        right_K = np.where(leaf_K, itself_K, right_K + shift_K)
        column_K = np.where(leaf_K, -1, values["split_indices"]).astype(np.int32)
        condition_K, left_missing_K = values["split_conditions"].astype(np.float64), values["default_left"] != 0
        return cls(root_T, left_K, right_K, column_K, condition_K, left_missing_K)

    @property
    def depth(self) -> int:
        """Depth of the deepest tree, at most one more than what is unfolded."""
        here, depth = self.root_T, 0
        while depth <= walk.DEEPEST and (inner := here[self.column_K[here] >= 0]).size:
            here, depth = np.concatenate([self.left_K[inner], self.right_K[inner]]), depth + 1
        return depth

    def unfolded(self) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.bool_], Float32s]:
        """Columns, conditions and sides of missing values of complete trees, and their leaves.

        A leaf above the lowest level is repeated for all below it.
        """
        here_TP = self.root_T[:, None]
        columns, conditions, sides = list[Any](), list[Any](), list[Any]()
        for _ in range(max(1, self.depth)):
            columns.append(self.column_K[here_TP])
            conditions.append(self.condition_K[here_TP])
            sides.append(self.left_missing_K[here_TP])
            here_TP = np.stack([self.left_K[here_TP], self.right_K[here_TP]], axis=2).reshape(len(here_TP), -1)
        leaf_TL = self.condition_K[here_TP].astype(np.float32)
        found = [np.concatenate(parts, axis=1) for parts in (columns, conditions, sides)]
        return found[0], found[1], found[2], leaf_TL

    def packed(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Nodes, int32 [K, 4], and roots, int32 [T], as `eravane_kernels.spec.add_trees` takes them."""
        leaf_K = self.column_K < 0
        number_K = self.condition_K.astype(np.float32).view(np.int32)
        split_K = np.where(leaf_K, LEAF, 2 * self.column_K + self.left_missing_K)
        node_K4 = np.stack([split_K, number_K, self.left_K, self.right_K], axis=1).astype(np.int32)
        return node_K4, self.root_T.astype(np.int32)
