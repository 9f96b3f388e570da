"""Parts of the loop that depend on the edition of a run: the meta-learner, and how trees are updated."""

from __future__ import annotations

from typing import Any

from eravane.core.config import FirstGateConfig, FirstLoopConfig, GateConfig, LoopConfig
from eravane.gate.edition1.gate import FirstMetaLearner
from eravane.gate.gate import MetaLearner


def gate_of(config: GateConfig) -> type[MetaLearner]:
    """The meta-learner that a configuration asks for: that of the edition of its keys."""
    return FirstMetaLearner if isinstance(config, FirstGateConfig) else MetaLearner


def update_constants(config: LoopConfig) -> dict[str, Any]:
    """Constants of `Updater` that were keys of an older edition, and older ways of updating."""
    if not isinstance(config, FirstLoopConfig):
        return {}
    return {
        "append_eras": config.append_window,
        "most_blocks": config.blocks,
        "leaves_half_life": config.leaves_half_life,
        "binned": True,
    }
