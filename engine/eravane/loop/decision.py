"""One era decided: which base models run, what they predict, and with what weights they are mixed.

The loop and the estimator both decide here. An exported model repeats it with NumPy alone (`eravane.gate.portable`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eravane.core.arrays import Bools, Float32s, Floats
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts
from eravane.scoring.ensemble import combine, gaussianize, one_era
from eravane_kernels.namespace import Kernels


@dataclass(frozen=True, eq=False)
class Decision:
    """An era as it was decided.

    Attributes:
        open_M: bool [M], the models that ran.
        base_MN: float32 [M, N], what they predicted; NaN for the others.
        weights_M: float64 [M], their weights in the ensemble, with sum 1.
        mixed_N: float64 [N], the weighted sum of their gaussianized predictions.
    """

    open_M: Bools
    base_MN: Float32s
    weights_M: Floats
    mixed_N: Floats


def decide_era(
    gate: MetaLearner,
    era: int,
    facts: EraFacts,
    evaluate: Callable[[Bools], Float32s],
    ops: Kernels,
    lap: Callable[[str], None] = lambda _: None,
) -> Decision:
    """Decide the gates of an era, run the open models and weigh them.

    Args:
        gate: what has learnt from the eras that are known.
        era: the era for which it decides.
        facts: what is known of the era before any model predicts it.
        evaluate: predictions [M, N] of some models, NaN for the others.
        ops: the kernels.
        lap: called with "decide", "predict" and "weigh" as each is done.
    """
    open_M = gate.decide(era, facts)
    lap("decide")
    base_MN = evaluate(open_M)
    z_MN = np.full(base_MN.shape, np.nan)
    z_MN[open_M] = gaussianize(base_MN[open_M], ops)
    lap("predict")
    weights_M = gate.weigh(era, facts, open_M, *agreement(z_MN, base_MN, ops))
    mixed_N = combine(z_MN, weights_M)
    lap("weigh")
    return Decision(open_M, base_MN, weights_M, mixed_N)


def agreement(z_MN: Floats, base_MN: Float32s, ops: Kernels) -> tuple[Floats, Floats]:
    """Gram matrix [M, M] and spread [M] of the models that ran; NaN for the others."""
    ran = ~np.isnan(base_MN).any(axis=1)
    C_MM, dispersion_M = np.full((ran.size, ran.size), np.nan), np.full(ran.size, np.nan)
    offsets = one_era(base_MN.shape[1])
    C_MM[np.ix_(ran, ran)] = ops.gram(z_MN[ran], offsets)[0]
    dispersion_M[ran] = ops.dispersion(base_MN[ran], offsets)[:, 0]
    return C_MM, dispersion_M
