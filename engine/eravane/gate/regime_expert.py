"""The expert on regimes: it follows resolved eras and weighs models by what the regime at hand is expected to pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.gate.network import Network
from eravane.gate.outcomes import EraFacts, History
from eravane.gate.portable import regime_weights
from eravane.gate.records import RIDGE, Records
from eravane.gate.regimes import Regimes
from eravane.gate.versions import Versions

# Resolved eras between fits; between them the regimes follow era by era.
FIT_EVERY = 26
# The era's own context: log rows and the share of missing features come first, then facts from outside, if any.
OWN_CONTEXT = 2


class RegimeExpert:
    """Regimes on the histories of cells, and the weights that follow.

    Args:
        history: resolved eras; records: what they say; network: normalises facts.
        paid: the quantity of an era that counts; lag: eras until a label may be used; horizon: eras that one spans.

    Attributes:
        versions: of the base models, from which the history of the present ones follows.
    """

    def __init__(self, history: History, records: Records, network: Network, paid: str, lag: int, horizon: int) -> None:
        self._history, self._records, self._network, self._paid, self._lag = history, records, network, paid, lag
        self._regimes = Regimes(history.size, horizon)
        self.versions = Versions()
        self._projected = 0

    @property
    def ready(self) -> bool:
        """Whether it has been fitted."""
        return self._regimes.ready

    def follow(self, known: int, *, refit: bool) -> None:
        """Come up to the first `known` resolved eras; fit anew when asked, when it is time, or when models changed."""
        regimes, history = self._regimes, self._history
        renewed = self._projected != len(self.versions.kept)
        if refit or renewed or not regimes.ready or known - regimes.fitted >= FIT_EVERY:
            views = [self._views(history.facts[position]) for position in range(known)]
            own_EMF, outside_ED = np.stack([own_MF for own_MF, _ in views]), np.stack([out_D for _, out_D in views])
            regimes.fit(self._cells(known), own_EMF, outside_ED, self._records.agreement_MM)
            self._projected = len(self.versions.kept)
        if regimes.known < known:
            paid_EM = self._cells(known)
            for position in range(regimes.known, known):
                regimes.add(paid_EM[position], *self._views(history.facts[position]))

    def weights(self, era: int, known: int, facts: EraFacts) -> tuple[FloatArray, FloatArray]:
        """Weights of the models [M], and what the bank's members expect [A, M]; equal weight until it is fitted."""
        size = self._history.size
        if not self._regimes.ready or self._regimes.known > known:
            return np.full(size, 1.0 / size), np.zeros((0, size))
        return regime_weights(self.numbers(era), *self._views(facts), self.view(known))

    def settle(self, answers_AM: FloatArray, paid_M: FloatArray) -> None:
        """Judge the members by a resolved era."""
        self._regimes.settle(answers_AM, paid_M)

    def numbers(self, era: int) -> dict[str, Any]:
        """What weights of an era rest on, as `portable.regime_weights` takes it."""
        known = self._regimes.known
        return self._regimes.numbers(era - self._history.eras[known - 1] if known else self._lag)

    def view(self, known: int) -> dict[str, Any]:
        """What `portable.regime_weights` needs beside that."""
        return {"agreement_MM": self._records.agreement_MM, "ridge": RIDGE, "seen_M": self._records.seen_NM[known]}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state but the versions, for safetensors."""
        return self._regimes.arrays() | self.versions.arrays() | {"projected": np.array([self._projected])}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the state of `arrays()`."""
        self._regimes.load(arrays)
        self.versions.load(arrays)
        self._projected = int(arrays["projected"][0])

    def _cells(self, known: int) -> FloatArray:
        """What every cell's present model would have been paid in the first `known` resolved eras [E, M].

        A model that was absent in an era has its mean there.
        """
        paid_EM, present_EM = self._history.column(self._paid, known), self._history.column("present", known)
        mean_M = paid_EM.sum(axis=0) / np.maximum(present_EM.sum(axis=0), 1)
        return self.versions.project(self._history.eras[:known], np.where(present_EM, paid_EM, mean_M))

    def _views(self, facts: EraFacts) -> tuple[FloatArray, FloatArray]:
        """Normalised facts of every model's cell [M, F], and facts from outside [D], NaN where they are missing."""
        own_MF, context_D = self._network.normalise(facts)
        outside = slice(OWN_CONTEXT, len(facts.context_D))
        return own_MF, np.where(np.isfinite(facts.context_D[outside]), context_D[outside], np.nan)
