"""Constants of the network and its training, apart from PyTorch, so that a plan can read them without loading it."""

from __future__ import annotations

from dataclasses import dataclass

from eravane.core.config import GateConfig

# Regimes that resolved eras are clustered into: as many as a year of weekly eras can tell apart.
REGIMES = 4


@dataclass(frozen=True)
class Training:
    """Constants of the network and its training; they are those that release 0.1.0 had as defaults of keys.

    Attributes:
        hidden: hidden units; rate: learning rate of a refit; decay: of the parameters per step, relative to the rate.
        replay: resolved eras drawn for each step; warm_steps: steps per era between refits.
        noise: on the inputs in training, in their standard deviations, which keeps the nets from memorising eras.
        keep_ratio: share of gates that are to be open; keep_penalty: weight of the squared distance to it.
        amplify: factor on that in eras that lose.
        prototype_weight: weight of the prototype loss (0: none).
        prototype_margin: distance of gate logits beyond which unlike eras repel no more; prototypes: regimes.
    """

    hidden: int = 8
    rate: float = 0.02
    decay: float = 0.01
    replay: int = 64
    warm_steps: int = 2
    noise: float = 1.0
    keep_ratio: float = 0.7
    keep_penalty: float = 1.0
    amplify: float = 2.0
    prototype_weight: float = 0.1
    prototype_margin: float = 4.0
    prototypes: int = REGIMES

    @classmethod
    def of(cls, config: GateConfig) -> Training:
        """The constants, and in their place the keys of a run of an edition that had them as keys."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__ if hasattr(config, name)})
