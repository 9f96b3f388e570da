"""Resolved eras on disk: a few kilobytes each, written once, from which the gate's history is rebuilt."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eravane.core.arrays import Named
from eravane.core.layout import Layout, value_of
from eravane.gate.outcomes import EraFacts, EraOutcome, History, split_cells
from eravane.runstate.eradisk import EraFiles
from eravane.scoring.payout import RULES, PayoutRule


class ResolvedEras(EraFiles):
    """Outcomes observed by the gate, one file per era."""

    def write(self, outcome: EraOutcome) -> None:
        """Store an outcome; after a kill it is complete or absent."""
        facts = outcome.facts
        arrays: Named = {
            "scores": outcome.scores_M,
            "c": outcome.c_M,
            "C": outcome.C_MM,
            "dispersion": outcome.dispersion_M,
            "model": facts.model_MS,
            "context": facts.context_D,
            "marginal": facts.marginal_KF,
            "cells": np.concatenate([np.zeros(0, dtype=np.int64), *facts.cells]),
            "cell_sizes": np.array([len(cell) for cell in facts.cells], dtype=np.int64),
        }
        if outcome.contribution_M is not None:
            arrays["contribution"] = outcome.contribution_M
        self.put(outcome.era, arrays)

    def history(self, newest: int, size: int, names: Mapping[str, object], payout: PayoutRule = RULES[-1]) -> History:
        """The history of `size` models up to era `newest`.

        Raises:
            RunError: a file is damaged.
        """
        history = History(size, payout)
        for era in self.eras():
            if era <= newest:
                history.append(self.get(era, lambda layout: _outcome(era, layout, names), M=size))  # noqa: B023
        return history


def _outcome(era: int, layout: Layout, names: Mapping[str, object]) -> EraOutcome:
    model, context = (tuple(value_of(names, name, list)) for name in ("model", "context"))
    facts = EraFacts(
        layout.take("model", "f8", "M", len(model)),
        layout.take("context", "f8", len(context)),
        model,
        context,
        layout.take("marginal", "f4", "K", "F"),
        split_cells(layout),
    )
    outcome = EraOutcome(
        era,
        layout.take("scores", "f8", "M"),
        layout.take("c", "f8", "M"),
        layout.take("C", "f8", "M", "M"),
        facts,
        layout.take("dispersion", "f8", "M"),
        layout.take("contribution", "f8", "M") if "contribution" in layout else None,
    )
    layout.end()
    return outcome
