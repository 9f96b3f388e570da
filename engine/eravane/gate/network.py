"""The trained network: normalisers and scorers, refitted from scratch or warm-started on resolved eras."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eravane.core.arrays import Bools as BoolArray
from eravane.core.arrays import Floats as FloatArray
from eravane.core.config import GateConfig
from eravane.core.layout import Layout
from eravane.gate.inputs import InputMap
from eravane.gate.outcomes import PAID_BY, EraFacts, GateModel, History
from eravane.gate.portable import network
from eravane.gate.prototypes import affinity, find_regimes, whiten
from eravane.gate.records import Records
from eravane.gate.scorer import (
    DTYPE,
    LAST_TEMPERATURE,
    Batch,
    Scorer,
    Trainer,
    load_parameters,
    parameters,
)
from eravane.gate.training import Training

# Eras that were decided on fewer resolved eras than this are not trained on.
LEAST_KNOWN = 8
# Between full refits the nets take a few steps per era, at a quarter of the rate.
WARM_RATE = 0.25


class Network:
    """Several nets with common inputs, averaged.

    Args:
        config: the [gate] section; models: the pool; lag: eras until a label may be used.
        seed: seed of everything random; device: torch device of the training; aim: what is paid.
    """

    def __init__(
        self, config: GateConfig, models: Sequence[GateModel], lag: int, seed: int, device: str, aim: str = "corr"
    ) -> None:
        self._config, self._lag, self._seed, self._device, self._paid = config, lag, seed, device, PAID_BY[aim]
        self._constants = Training.of(config)
        self.input_map: InputMap | None = None
        self._scorer: Scorer | None = None
        self.fitted = 0
        self._replayed: dict[int, tuple[FloatArray, FloatArray]] = {}
        self._tiers = sorted({model.feature_set for model in models})
        member_MA = [[float(model.feature_set == tier) for tier in self._tiers] for model in models]
        self._agents_MA = torch.tensor(member_MA, dtype=DTYPE, device=device)

    @property
    def ready(self) -> bool:
        """Whether it has been trained."""
        return self._scorer is not None

    def normalise(self, facts: EraFacts) -> tuple[FloatArray, FloatArray]:
        """Normalised facts of each model [M, S + R] and of the era, as `InputMap.normalise`; needs a first fit."""
        assert self.input_map is not None
        return self.input_map.normalise(facts)

    @property
    def marginals(self) -> tuple[int, int]:
        """How many marginal statistics are measured, and how many of them vary over eras."""
        kept = self.input_map.kept_KF if self.input_map is not None else np.zeros(0, dtype=bool)
        return kept.size, int(kept.sum())

    def due(self, known: int) -> bool:
        """Whether a full refit is due when `known` eras are resolved."""
        return self._scorer is None or known - self.fitted >= self._config.refit_every

    def refit(self, history: History, records: Records, known: int) -> None:
        """Fit normalisers and nets from scratch on the first `known` resolved eras."""
        config = self._config
        self.input_map = InputMap.fit(history, records, known, self._lag, config)
        self._replayed.clear()
        batch = self._batch(history, records, np.arange(known))
        seed = zlib.crc32(f"refit {self._seed} {known}".encode())
        sizes = (self.input_map.early, batch.x_EMF.shape[2], batch.context_ED.shape[1])
        self._scorer = Scorer(*sizes, self._agents_MA.shape[1], config, seed).to(self._device)
        self.fitted = known
        steps = config.steps if config.networked else 0
        self._trainer.fit(self._scorer, batch, steps=steps, rate=self._constants.rate, seed=seed, warm=False)

    def warm_start(self, history: History, records: Records, known: int) -> None:
        """Take a few steps on the newest resolved era and a sample of the others."""
        assert self._scorer is not None
        seed = zlib.crc32(f"warm {self._seed} {known}".encode())
        others = np.random.default_rng(seed).permutation(known - 1)[: self._constants.replay - 1]
        batch = self._batch(history, records, np.append(np.sort(others), known - 1))
        steps, rate = self._constants.warm_steps, WARM_RATE * self._constants.rate
        self._trainer.fit(self._scorer, batch, steps=steps, rate=rate, seed=seed, warm=True)

    @property
    def _trainer(self) -> Trainer:
        return Trainer(self._config, self._agents_MA, self._lag)

    def _batch(self, history: History, records: Records, positions: NDArray[np.int64]) -> Batch:
        """Inputs as they were known at each era, outcomes as they resolved; eras with next to no past are left out."""
        assert self.input_map is not None
        known = [history.known(history.eras[position], self._lag) for position in positions]
        kept = [int(position) for position, n in zip(positions, known, strict=True) if n >= LEAST_KNOWN]
        kept = kept or [int(position) for position in positions]
        for position in kept:
            if position not in self._replayed:
                self._replayed[position] = self.input_map.replay(history, records, position, self._lag)
        rows = [self._replayed[position] for position in kept]
        present_EM = np.stack([history.row("present", position) for position in kept])
        c_EM = np.stack([history.row(self._paid, position) for position in kept])
        C_EMM = np.stack([history.row("C", position) for position in kept])
        alike_EM = whiten(np.stack([history.row("c", position) for position in kept]))
        return Batch(
            x_EMF=self._tensor(np.stack([x_MF for x_MF, _ in rows])),
            context_ED=self._tensor(np.stack([context_D for _, context_D in rows])),
            c_EM=self._tensor(c_EM),
            C_EMM=self._tensor(C_EMM),
            present_EM=self._tensor(present_EM),
            affinity_EE=self._tensor(affinity(alike_EM)),
            regime_E=torch.as_tensor(find_regimes(alike_EM, self._constants.prototypes)[0], device=self._device),
            era_E=torch.tensor([history.eras[position] for position in kept], device=self._device),
            scale=_gain_scale(c_EM, C_EMM, present_EM),
        )

    def predict(
        self,
        records: Records,
        known: int,
        facts: EraFacts,
        open_M: BoolArray,
        C_MM: FloatArray,
        dispersion_M: FloatArray,
    ) -> tuple[BoolArray, FloatArray]:
        """Gates [M], and weights [M] of the open models behind them (of all open gates where no model is open)."""
        assert self.input_map is not None
        assert self._scorer is not None
        x_MF, context_D = self.input_map.inputs(records, known, facts, open_M, C_MM, dispersion_M)
        nets = {
            name.removeprefix("scorer."): array.astype(np.float64) for name, array in parameters(self._scorer).items()
        }
        deciding = {
            "agents_MA": self._agents_MA.cpu().numpy().astype(np.float64),
            "temperature": LAST_TEMPERATURE,
        }
        # In float64 and outside torch: an exported model must come to the same ranks, and so must every device.
        return network(x_MF, context_D, open_M, nets, deciding)

    def _tensor(self, values: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values, dtype=np.float64), device=self._device)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Normalisers and parameters, for safetensors; empty before the first fit."""
        if self._scorer is None or self.input_map is None:
            return {}
        return self.input_map.arrays() | parameters(self._scorer) | {"network.fitted": np.array([self.fitted])}

    def load(self, layout: Layout) -> None:
        """Take over the state of `arrays()`.

        Raises:
            LayoutError: it is laid out in another way.
        """
        if not any(layout.names(prefix) for prefix in ("network.", "inputs.", "scorer.")):
            return
        self.fitted = int(layout.take("network.fitted", "i8", 1)[0])
        self.input_map = InputMap.restore(layout)
        self._scorer = Scorer(*self.input_map.sizes, len(self._tiers), self._config, 0).to(self._device)
        load_parameters(self._scorer, layout)


def _gain_scale(c_EM: FloatArray, C_EMM: FloatArray, present_EM: BoolArray) -> float:
    """Standard deviation of single models' gains over equal weight, the unit of the reward."""
    equal_EM = present_EM / np.maximum(present_EM.sum(axis=1, keepdims=True), 1)
    variance_E = np.einsum("em,emn,en->e", equal_EM, C_EMM, equal_EM)
    equal_E = (c_EM * equal_EM).sum(axis=1) / np.sqrt(np.maximum(variance_E, 1e-8))
    gain_EM = (c_EM - equal_E[:, None])[present_EM]
    return max(float(np.std(gain_EM)), 1e-6) if gain_EM.size else 1.0
