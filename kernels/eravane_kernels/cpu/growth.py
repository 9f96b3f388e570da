"""Depth-wise trees on integer levels, grown from the columns as they lie in memory and on those of the tree alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from eravane_kernels import checks
from eravane_kernels.arrays import Integers, Levels, Single
from eravane_kernels.cpu import splits
from eravane_kernels.cpu.growing import grow
from eravane_kernels.cpu.growmemory import NO_WEIGHTS, Memory, as_tree
from eravane_kernels.cpu.levelcolumns import LevelColumns
from eravane_kernels.growth import Rules, Tree, Units, check_columns, check_rows, units


class Grower:
    """Grows trees on the same columns, one after the other or several at once.

    Memory is allocated at first use (see `growmemory`) and kept; gradients are kept in the array that brings them.
    `boosting.Boosting` grows many rounds in one call.

    Args:
        columns: the data.
        rules: how trees are grown.
        widest: most columns of a tree.
        threads: of the processor; no result depends on them.
    """

    def __init__(self, columns: LevelColumns, rules: Rules, widest: int, threads: int = 1) -> None:
        self._columns, self._rules, self._widest, self._threads = columns, rules, widest, threads
        self._memory: Memory | None = None

    def learn_at(self, eta: float) -> None:
        """Change the factor of the leaf values for the trees that are still to grow."""
        self._rules = replace(self._rules, eta=eta)
        if self._memory is not None:
            self._memory.rule_7[splits.ETA] = np.float32(eta)

    def grow(self, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, margin_N: Single) -> Tree:
        """Grow a tree on some of the columns, and add its output to `margin_N`.

        Args:
            gradient_N: float32 [N]; overwritten.
            hessian_N: float32 [N]; None for ones. Rows with gradient and Hessian 0 count as absent.
            columns_K: ascending positions.
            margin_N: float32 [N], changed in place.

        Raises:
            ValueError: an array has the wrong shape or type or is read-only, a gradient is infinite or NaN, a Hessian
                is negative.
        """
        rows = self._columns.rows
        checks.vector(gradient_N, "gradient_N", rows, "float32")
        checks.vector(margin_N, "margin_N", rows, "float32")
        hessian_BN = None
        if hessian_N is not None:
            checks.vector(hessian_N, "hessian_N", rows, "float32")
            hessian_BN = hessian_N[None]
        return self.grow_many(gradient_N[None], hessian_BN, columns_K, margin_N[None])[0]

    def grow_many(
        self,
        gradient_BN: Single,
        hessian_BN: Single | None,
        columns_K: Integers,
        margin_BN: Single,
        *,
        spent: bool = False,
    ) -> list[Tree]:
        """Grow B trees on the same columns, each as `grow` does, and read these once for all of them.

        Args:
            gradient_BN: float32 [B, N]; overwritten.
            hessian_BN: float32 [B, N]; None for ones.
            columns_K: ascending positions.
            margin_BN: float32 [B, N], changed in place.
            spent: overwrite `hessian_BN` too, which takes 4 bytes a row and model less.

        Raises:
            ValueError: as `grow` does.
        """
        models = len(gradient_BN)
        for name, array in (("gradient", gradient_BN), ("hessian", hessian_BN), ("margin", margin_BN)):
            if array is not None:
                _check_table(array, name, (models, self._columns.rows))
        check_columns(columns_K, self._columns.width)
        hessians = [None] * models if hessian_BN is None else list(hessian_BN)
        for gradient_N, hessian_N in zip(gradient_BN, hessians, strict=True):
            check_rows(gradient_N, hessian_N, self._columns.rows)
        power_B2, counting = powers([units(*each) for each in zip(gradient_BN, hessians, strict=True)])
        if self._memory is None or self._memory.models != models:
            self._memory = Memory(self._columns, self._rules, self._widest, self._threads, models)
        memory = self._memory
        weight_BN = NO_WEIGHTS if hessian_BN is None else np.require(hessian_BN, requirements="W")
        rows = memory.rows(gradient_BN, weight_BN, margin_BN, spent=spent and hessian_BN is not None)
        terms = memory.terms(counting)
        terms.scale_B2[:], terms.unit_B2[:] = np.ldexp(1.0, power_B2), np.ldexp(1.0, -power_B2)
        nodes, level = memory.nodes(1), memory.level(len(columns_K))
        memory.run(grow, memory.source(columns_K), rows, level, memory.scratch, terms, nodes, 0)
        return [as_tree(nodes, 0, model) for model in range(models)]


def _check_table(array: Single, name: str, shape: tuple[int, int]) -> None:
    """Exactly this shape, float32, contiguous, and what is changed may be written to."""
    checks.columns(array, f"{name}_BN", "float32")
    checks.shape(array, f"{name}_BN", shape, "float32")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}_BN: expected contiguous memory, given strides {array.strides}")
    if name != "hessian" and not array.flags.writeable:
        raise ValueError(f"{name}_N: expected an array that may be written to, given a read-only one")


def powers(units_B: Sequence[Units]) -> tuple[Integers, bool]:
    """The powers of two of gradients and Hessians [B, 2], and whether all Hessians are 0 or 1."""
    return np.array([unit[:2] for unit in units_B], dtype=np.int64), all(unit.counting for unit in units_B)


def grow_tree(
    x_CN: Levels, gradient_N: Single, hessian_N: Single | None, columns_K: Integers, rules: Rules
) -> tuple[Tree, Single]:
    """See `spec.grow_tree`. `Grower` grows many trees on the same columns."""
    checks.columns(x_CN, "x_CN", "int8")
    check_columns(columns_K, len(x_CN))
    margin_N = np.zeros(x_CN.shape[1], dtype=np.float32)
    grower = Grower(LevelColumns.of([x_CN]), rules, len(columns_K))
    check_rows(gradient_N, hessian_N, x_CN.shape[1])
    return grower.grow(gradient_N.copy(), hessian_N, columns_K, margin_N), margin_N
