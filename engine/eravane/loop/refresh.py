"""Re-estimates leaf values on new eras: the trees keep their splits, the values of their leaves follow the data.

For the squared error, boosted tree by tree in their order, the best value of a leaf on the new rows is
`-eta * sum(w g) / (sum(w) + lambda)` with `g = margin - label` (Chen and Guestrin 2016, equation 5). A leaf becomes
`keep * old + (1 - keep) * new`, as LightGBM's `refit` does with its decay; a leaf without new rows is unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eravane.core.arrays import Float32s, on_host
from eravane.core.errors import ConfigError
from eravane.learners.forest import Nodes
from eravane.learners.protocol import INTERCEPT, Stop, check_stop
from eravane.learners.ubj import JoinedTrees, dump, load
from eravane_kernels.namespace import Kernels

SQUARED_ERROR = "reg:squarederror"
TREES_AT_ONCE = 50


def check_refreshable(params: Mapping[str, object]) -> None:
    """Refuse objectives and penalties under which the formula above does not hold.

    Raises:
        ConfigError: naming the parameter.
    """
    if params["objective"] != SQUARED_ERROR:
        raise ConfigError(
            f'loop.update with leaves needs zoo.params.objective "{SQUARED_ERROR}", given {params["objective"]!r}'
        )
    if params.get("booster", "gbtree") != "gbtree":  # dropout weighs its trees
        raise ConfigError(f'loop.update with leaves needs zoo.params.booster "gbtree", given {params["booster"]!r}')
    for name in ("rate_drop", "one_drop", "alpha", "reg_alpha", "max_delta_step", "num_parallel_tree"):
        if params.get(name, 0) not in (0, 1 if name == "num_parallel_tree" else 0):
            raise ConfigError(f"loop.update with leaves does not support zoo.params.{name}; leave it out or use refit")


def refresh(
    models: Sequence[Sequence[bytes]],
    values_CN: Any,
    label_BN: Float32s,
    weight_N: Float32s | None,
    *,
    params: Mapping[str, Any],
    keep: float,
    kernels: Kernels,
    stop: Stop | None = None,
) -> list[tuple[bytes, ...]]:
    """Re-estimate every leaf of some models on rows that they share.

    Args:
        models: UBJ bytes of the blocks of each of B models, in order; their outputs add up.
        values_CN: int8 or float32 [C, N], the models' columns, where `kernels` take them.
        label_BN: float32 [B, N]; rows with NaN do not count.
        weight_N: float32 [N] or None for equal weights.
        params: the resolved parameters that the trees were grown with (`eta` and `lambda` are read).
        keep: share of the old value that is kept, 0..1.
        kernels: of the device.
        stop: asked every `TREES_AT_ONCE` trees.

    Returns:
        The blocks of each model with new leaf values; the same bytes where no row has a label.

    Raises:
        TrainingInterruptedError: `stop` was set.
    """
    known_B = [model for model, label_N in enumerate(label_BN) if not np.isnan(label_N).all()]
    read = [[load(block) for block in models[model]] for model in known_B]
    trees = [[tree for block in blocks for tree in _trees(block)] for blocks in read]
    rows = label_BN.shape[1]
    weight_N = np.ones(rows, dtype=np.float32) if weight_N is None else weight_N.astype(np.float32)
    margin_BN: Any = np.full((len(known_B), rows), float(INTERCEPT))
    label_BN = np.ascontiguousarray(label_BN[known_B])
    rate, ridge = float(params.get("learning_rate", params["eta"])), _ridge(params)
    for begin in range(0, max(map(len, trees), default=0), TREES_AT_ONCE):
        check_stop(stop)
        parts = [own[begin : begin + TREES_AT_ONCE] for own in trees]
        first_B1 = np.cumsum([0, *map(len, parts)])
        part = [tree for own in parts for tree in own]
        node_K4, root_T = Nodes.of(JoinedTrees.of(part)).packed()
        tree_T2 = np.stack([root_T, np.append(root_T[1:], len(node_K4))], axis=1).astype(np.int32)
        # To the bytes of older releases, which took old values from XGBoost's JSON: decimals that are read as doubles.
        old_K = node_K4.view(np.float32)[:, 1].astype("U").astype(np.float64)
        number_K, margin_BN = kernels.renew_leaves(
            values_CN, node_K4, old_K, tree_T2, first_B1, label_BN, weight_N, margin_BN, rate, ridge, keep
        )
        number_K = on_host(number_K)
        for tree, (first, end) in zip(part, tree_T2, strict=True):
            tree["split_conditions"] = number_K[first:end]
    renewed = dict(zip(known_B, read, strict=True))
    return [
        tuple(dump(block) for block in renewed[model]) if model in renewed else tuple(blocks)
        for model, blocks in enumerate(models)
    ]


def _trees(block: Any) -> list[dict[str, Any]]:
    trees: list[dict[str, Any]] = block["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def _ridge(params: Mapping[str, Any]) -> float:
    return float(params.get("reg_lambda", params.get("lambda", 1.0)))
