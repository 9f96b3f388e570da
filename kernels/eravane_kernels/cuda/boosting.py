"""Squared error boosted on the device: a round is launches alone, and trees are fetched when all are grown."""

from __future__ import annotations

from eravane_kernels.arrays import Integers
from eravane_kernels.cuda import inputs
from eravane_kernels.cuda.growth import Grower, are_counts
from eravane_kernels.cuda.inputs import Array
from eravane_kernels.cuda.runtime import active
from eravane_kernels.growth import Tree


class Boosting:
    """Models of squared error that grow side by side, each tree on the same columns and rows.

    Args:
        grower: for as many trees at once as there are goals.
        goal_BN: float32 [B, N], finite.
        hessian_BN: float32 [B, N], weights of the rows, 0 where a row is absent; None for ones.
        margin_BN: float32 [B, N], the outputs to begin with; copied.

    Raises:
        ValueError: an array has the wrong shape or type.
    """

    def __init__(self, grower: Grower, goal_BN: Array, hessian_BN: Array | None, margin_BN: Array) -> None:
        shape, xp = (len(goal_BN), grower.rows), active().xp
        self._grower = grower
        self._goal_BN = inputs.shaped(goal_BN, "goal_BN", shape, "float32")
        self._hessian_BN = None if hessian_BN is None else inputs.shaped(hessian_BN, "hessian_BN", shape, "float32")
        self._counting = hessian_BN is None or are_counts(self._hessian_BN)
        self.margin_BN = xp.array(inputs.shaped(margin_BN, "margin_BN", shape, "float32"))
        self._gradient_BN = xp.empty(shape, dtype="float32")
        self._grown: list[list[Tree]] = []
        self._rounds = 0

    def step(self, columns_K: Integers, drawn_N: Array | None = None) -> None:
        """Grow a tree of every model and add it to the outputs.

        Nothing is read back, but for the trees of many rounds when there is no room for more of them.

        Args:
            columns_K: int64, ascending positions, on the host.
            drawn_N: bool [N], rows that these trees are grown from; None for all.

        Raises:
            ValueError: wrong positions or rows, or what `trees` raises.
        """
        if self._rounds == self._grower.kept:
            self._fetch()
        self._grower.enqueue(
            self._rounds, self._gradient_BN, self._of_drawn(drawn_N), columns_K, self.margin_BN,
            counting=self._counting, goal_BN=self._goal_BN,
        )  # fmt: skip
        self._rounds += 1

    def trees(self) -> list[list[Tree]]:
        """The trees of every model so far, in the order of rounds.

        Raises:
            ValueError: a gradient became infinite or NaN, or a Hessian is or is negative.
        """
        self._fetch()
        return [[trees[model] for trees in self._grown] for model in range(len(self._goal_BN))]

    def _fetch(self) -> None:
        rounds, self._rounds = self._rounds, 0
        if rounds:
            self._grown += self._grower.fetch(rounds, len(self._goal_BN))

    def _of_drawn(self, drawn_N: Array | None) -> Array | None:
        if drawn_N is None:
            return self._hessian_BN
        xp, zero = active().xp, active().xp.zeros(1, dtype="float32")
        drawn_N = inputs.shaped(drawn_N, "drawn_N", (self._grower.rows,), "bool")
        ones = xp.ones((len(self._goal_BN), 1), dtype="float32")
        return xp.where(drawn_N[None], ones if self._hessian_BN is None else self._hessian_BN, zero)
