"""Rounds of boosting for squared error on the device: launches alone, and the trees of many rounds fetched together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eravane_kernels.arrays import Single
from eravane_kernels.cuda.draws import draw_columns, stream_of
from eravane_kernels.cuda.growth import WHOLE, Columns, Gradients, Grower, are_counts, bytes_needed
from eravane_kernels.cuda.runtime import active, upload
from eravane_kernels.growth import Rules, Tree, check_boosting

KEPT_BYTES, MOST_KEPT = 1 << 24, 1024
"""Bytes of trees that wait on the device to be fetched, and rounds of them."""


class Boosting:
    """Boosts B models of squared error at the same time, on the same draws of columns and rows; see `spec.boost`.

    To the bit what `cpu.boosting.Boosting` grows. All work of a round is launched without a look at any of its results.

    Args:
        columns: the data.
        rules: how trees are grown.
        goal_BN: float32 [B, N] on the host, what is to be learned; NaN rows count as absent.
        weight_N: float32 [N] on the host, 0 or more; None for equal weights.
        margin_BN: float32 [B, N] on the host, output of earlier trees.
        seed: of the draws, 0..2^63-1.
        chosen: columns of a tree.
        share: of the rows, drawn one by one for each round.

    Raises:
        ValueError: an array has the wrong shape or type, a goal is infinite, a margin or weight is not finite, or a
            weight negative.
    """

    def __init__(
        self,
        columns: Columns,
        rules: Rules,
        goal_BN: Single,
        weight_N: Single | None,
        margin_BN: Single,
        *,
        seed: int,
        chosen: int,
        share: float = 1.0,
    ) -> None:
        check_boosting(goal_BN, weight_N, margin_BN, columns.rows, columns.width, chosen)
        models = len(goal_BN)
        xp = active().xp
        self._grower = Grower(columns, rules, chosen, models, _kept(rules, models))
        self._seed, self._turn = seed, 0
        self._width, self._chosen = columns.width, chosen
        self._goal_BN, self.margin_BN = upload(goal_BN), xp.array(upload(margin_BN))
        self._hessian_1N = None if weight_N is None else upload(weight_N[None])
        self._counting = self._hessian_1N is None or are_counts(self._hessian_1N)
        self._gradients = Gradients(
            xp.empty(goal_BN.shape, dtype=np.float32), self._hessian_1N, self._counting, self._goal_BN,
            round(share * WHOLE),
        )  # fmt: skip
        # Launches of a round that packs its columns, and of one that does not; None where they were made once.
        self._graphs: dict[bool, Callable[[], None] | None] = {}

    def grow(self, rounds: int) -> list[list[Tree]]:
        """Grow the next trees: [rounds][B]. Fewer rounds than asked for where there is no room for their trees.

        Raises:
            ValueError: outputs have grown beyond what a float32 holds.
        """
        rounds = max(1, min(rounds, self._grower.kept))
        turns = range(self._turn, self._turn + rounds)
        column_RK = np.stack([draw_columns(self._seed, turn, self._width, self._chosen) for turn in turns])
        self._grower.begin(column_RK, [stream_of(self._seed, turn, 1) for turn in turns])
        for _ in turns:
            self._launch()
        self._turn += rounds
        return self._grower.fetch(rounds, len(self._goal_BN))

    def _launch(self) -> None:
        """A round: the first of its kind launch by launch, which loads the kernels; then they are one graph."""
        grower, packs = self._grower, self._grower.packs
        if packs not in self._graphs:
            grower.launch_round(self._gradients, self.margin_BN, packs)
            self._graphs[packs] = None
        else:
            if self._graphs[packs] is None:
                self._graphs[packs] = active().record(
                    lambda: grower.launch_round(self._gradients, self.margin_BN, packs)
                )
            replay = self._graphs[packs]
            assert replay is not None
            replay()
        grower.passed()


def boosting_bytes(rows: int, chosen: int, rules: Rules, models: int, *, weighed: bool) -> int:
    """Bytes on the device that a `Boosting` takes, without the columns."""
    kept = _kept(rules, models)
    taken = bytes_needed(rows, chosen, rules.max_depth, models, kept, weighed=weighed)
    return taken + rows * (12 * models + (4 if weighed else 0))


def _kept(rules: Rules, models: int) -> int:
    """Rounds whose trees wait to be fetched."""
    one = bytes_needed(0, 1, rules.max_depth, models, 1) - bytes_needed(0, 1, rules.max_depth, models, 0)
    return max(1, min(MOST_KEPT, KEPT_BYTES // one))
