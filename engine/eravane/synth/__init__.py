"""Made data in Numerai's format with a planted, known signal: `synthesise` writes it, `iter_eras` yields it."""

from __future__ import annotations

from eravane.synth.config import PRESETS, SynthConfig
from eravane.synth.world import MadeEra, World, iter_eras
from eravane.synth.writer import TRUTH, synthesise

__all__ = ["PRESETS", "TRUTH", "MadeEra", "SynthConfig", "World", "iter_eras", "synthesise"]
