"""One era decided with the kernels; how is in `eravane.gate.portable`, which an exported model carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from eravane.core.arrays import Bools, Float32s, Floats, on_host
from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts
from eravane.gate.portable import decide_era
from eravane.scoring.ensemble import combine, gaussianize, one_era
from eravane_kernels.namespace import Kernels


@dataclass(frozen=True, eq=False)
class Decision:
    """An era as it was decided.

    Attributes:
        open_M: bool [M], the models that ran.
        base_MN: float32 [M, N], what they predicted; NaN for the others.
        weights_M: float64 [M], their weights in the ensemble, with sum 1.
        mixed_N: float64 [N], the weighted sum of their gaussianized predictions, where the kernels work.
    """

    open_M: Bools
    base_MN: Float32s
    weights_M: Floats
    mixed_N: Floats


@dataclass(frozen=True)
class Measured:
    """The arithmetic of an era's predictions by the kernels."""

    ops: Kernels

    def gaussianize(self, base_MN: Float32s) -> Floats:
        """See `portable.Arithmetic`."""
        return gaussianize(base_MN, self.ops)

    def gram(self, z_MN: Floats) -> Floats:
        """See `portable.Arithmetic`."""
        C_MM: Floats = on_host(self.ops.gram(z_MN, one_era(z_MN.shape[1])))[0]
        return C_MM

    def dispersion(self, base_MN: Float32s) -> Floats:
        """See `portable.Arithmetic`."""
        dispersion_M: Floats = on_host(self.ops.dispersion(base_MN, one_era(base_MN.shape[1])))[:, 0]
        return dispersion_M

    def combine(self, z_MN: Floats, weights_M: Floats) -> Floats:
        """See `portable.Arithmetic`."""
        return combine(z_MN, weights_M, self.ops)


def decide(
    gate: MetaLearner,
    era: int,
    facts: EraFacts,
    evaluate: Callable[[Bools], Float32s],
    ops: Kernels,
    lap: Callable[[str], None] = lambda _: None,
) -> Decision:
    """Decide the gates of an era, run the open models and weigh them; see `portable.decide_era`.

    Args:
        gate: what has learnt from the eras that are known.
        era: the era for which it decides.
        facts: what is known of the era before any model predicts it.
        evaluate: predictions [M, N] of some models, NaN for the others.
        ops: the kernels.
        lap: called with "decide", "predict" and "weigh" as each is done.
    """
    found = decide_era(
        lambda: gate.decide(era, facts),
        evaluate,
        lambda open_M, C_MM, dispersion_M: gate.weigh(era, facts, open_M, C_MM, dispersion_M),
        Measured(ops),
        lap,
    )
    return Decision(*found)
