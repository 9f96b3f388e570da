"""Cells that stay: experts on what every cell's present model would have been paid in past eras."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import Floats as FloatArray
from eravane.core.layout import Layout
from eravane.gate.experts import STABLE, shrunk
from eravane.gate.network import Network
from eravane.gate.outcomes import EraFacts, History
from eravane.gate.portable import foresee
from eravane.gate.portable_weights import expected_weights
from eravane.gate.records import Records
from eravane.gate.regimes import Regimes
from eravane.gate.versions import Versions

# Half-lives of the ridges: where all models are good the newest eras count, where some are bad all of them do.
RIDGES = {"ridge": 16.0, "ridge_64": 64.0, "ridge_all": float("inf")}
# Resolved eras between fits; between them the regimes follow era by era.
FIT_EVERY = 26
# The era's own context: log rows and the share of missing features come first, then facts from outside, if any.
OWN_CONTEXT = 2


class Cells:
    """Histories of cells; what ridges of several half-lives and regimes expect by them, and the weights that follow.

    Args:
        history: resolved eras; records: running facts from them; network: normalises facts.
        paid: the quantity of an era that counts; lag: eras until a label may be used; horizon: eras that one spans.

    Attributes:
        versions: of the base models, from which the history of the present ones follows.
    """

    def __init__(self, history: History, records: Records, network: Network, paid: str, lag: int, horizon: int) -> None:
        self._history, self._records, self._network, self._paid, self._lag = history, records, network, paid, lag
        self._regimes = Regimes(history.size, horizon)
        self.versions = Versions()
        self._paid_EM, self._projected, self._used = np.zeros((0, history.size)), 0, 0
        self._first_EM = np.zeros((0, history.size))
        self._total_M, self._count_M = np.zeros(history.size), np.zeros(history.size)
        self._asked, self._expected_LM = (0, 0, 0), np.zeros((len(RIDGES), history.size))

    @property
    def ready(self) -> bool:
        """Whether it has been fitted."""
        return self._regimes.ready

    def follow(self, known: int, *, refit: bool) -> None:
        """Come up to the first `known` resolved eras; fit anew when asked, when it is time, or when models changed."""
        regimes, history = self._regimes, self._history
        renewed = self._used != len(self.versions.kept)
        if refit or renewed or not regimes.ready or known - regimes.fitted >= FIT_EVERY:
            views = [self._views(history.facts[position]) for position in range(known)]
            own_EMF, outside_ED = np.stack([own_MF for own_MF, _ in views]), np.stack([out_D for _, out_D in views])
            paid_EM, first_MM = self.paid(known), self.versions.first_MM
            first = None if first_MM is None else (self._first_EM[:known], first_MM)
            regimes.fit(paid_EM, own_EMF, outside_ED, self._agreement_MM, first)
            self._used = len(self.versions.kept)
        if regimes.known < known:
            paid_EM = self.paid(known)
            for position in range(regimes.known, known):
                regimes.add(paid_EM[position], *self._views(history.facts[position]), self._first_EM[position])

    def expected(self, known: int) -> FloatArray:
        """Expected c of the models when `known` eras are resolved [L, M], a row for each of `RIDGES`.

        Errors count as if eras were independent: shrinking by the noise of overlapping labels loses 3 to 5e-4 on real
        series, and gains nothing where nothing is to be learnt, since equal weight is an expert too.
        """
        asked, size = (known, len(self._history), len(self.versions.kept)), self._history.size
        if not known:
            return np.zeros((len(RIDGES), size))
        if self._asked != asked:
            self._asked, self._expected_LM = asked, self._expectations(self.paid(known))
        return self._expected_LM

    def _expectations(self, paid_EM: FloatArray) -> FloatArray:
        known, size = paid_EM.shape
        C_MM, rest_EM = self._agreement_MM, paid_EM - paid_EM.mean(axis=0)
        noise = float((rest_EM * np.linalg.solve(C_MM + STABLE * np.eye(size), rest_EM.T).T).mean())
        share_LE = np.stack([0.5 ** (np.arange(known - 1, -1, -1) / half_life) for half_life in RIDGES.values()])
        share_LE /= share_LE.sum(axis=1, keepdims=True)
        return np.stack([shrunk(share_E @ paid_EM, C_MM, noise * float(share_E @ share_E)) for share_E in share_LE])

    def weights(self, era: int, known: int, facts: EraFacts, C_MM: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Weights of the models by regimes [M], equal until it is fitted, and the answers of `foresee` [A + 1, M]."""
        size = self._history.size
        if not self._regimes.ready or self._regimes.known > known:
            return np.full(size, 1.0 / size), np.zeros((0, size))
        c_M, answers_AM = foresee(self.numbers(era), *self._views(facts))
        return expected_weights(c_M, C_MM, self._records.seen_NM[known]), answers_AM

    def settle(self, answers_AM: FloatArray, paid_M: FloatArray) -> None:
        """Judge the members by a resolved era."""
        self._regimes.settle(answers_AM, paid_M)

    def numbers(self, era: int) -> dict[str, Any]:
        """Numbers from which `portable.foresee` derives the weights of an era."""
        known = self._regimes.known
        return self._regimes.numbers(era - self._history.eras[known - 1] if known else self._lag)

    @property
    def _agreement_MM(self) -> FloatArray:
        """Agreement of the present models' predictions [M, M]."""
        newest_MM = self.versions.agreement_MM
        return self._records.agreement_MM if newest_MM is None else newest_MM

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All state but the versions, for safetensors."""
        return self._regimes.arrays() | self.versions.arrays() | {"projected": np.array([self._used])}

    def load(self, layout: Layout) -> None:
        """Take over the state of `arrays()`.

        Raises:
            LayoutError: it is laid out in another way.
        """
        if self._network.input_map is not None:
            outside = len(self._network.input_map.context_scale_D) - OWN_CONTEXT
            layout.fix(slopes=self._network.input_map.own, facts=max(self._history.size, outside))
        self._regimes.load(layout)
        self.versions.load(layout)
        self._used = int(layout.take("projected", "i8", 1)[0])

    def paid(self, known: int) -> FloatArray:
        """Payment that every cell's present model would have had in the first `known` resolved eras [E, M].

        A model that was absent in an era has its mean until then there. Projected once per version of the models.
        """
        history = self._history
        if self._projected != len(self.versions.kept):
            self._paid_EM, self._first_EM = self._paid_EM[:0], self._first_EM[:0]
            self._projected = len(self.versions.kept)
            self._total_M, self._count_M = np.zeros(history.size), np.zeros(history.size)
        rows = []
        for position in range(len(self._paid_EM), known):
            paid_M, present_M = history.row(self._paid, position), history.row("present", position)
            self._total_M, self._count_M = self._total_M + paid_M, self._count_M + present_M
            rows.append(np.where(present_M, paid_M, self._total_M / np.maximum(self._count_M, 1)))
        if rows:
            eras, new_EM = history.eras[known - len(rows) : known], np.stack(rows)
            self._paid_EM = np.concatenate([self._paid_EM, self.versions.project(eras, new_EM)])
            self._first_EM = np.concatenate([self._first_EM, self.versions.first(eras, new_EM)])
        return self._paid_EM[:known]

    def _views(self, facts: EraFacts) -> tuple[FloatArray, FloatArray]:
        """Normalised facts of every model's cell [M, F], and facts from outside [D], NaN where they are missing."""
        own_MF, context_D = self._network.normalise(facts)
        outside = slice(OWN_CONTEXT, len(facts.context_D))
        return own_MF, np.where(np.isfinite(facts.context_D[outside]), context_D[outside], np.nan)
