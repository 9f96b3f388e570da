"""Earlier versions of the base models: kept as they ended, and evaluated on eras that fall due, out of sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from eravane.core.arrays import on_host
from eravane.data.features import Features
from eravane.gate.versions import Version, Versions
from eravane.learners.protocol import Model as Booster
from eravane.learners.registry import predict
from eravane.loop.sources import EraSource, source_of, values_of
from eravane.loop.updates import Model
from eravane.scoring.ensemble import gaussianize
from eravane.zoo.specs import ModelSpec
from eravane_kernels.namespace import Kernels

# Rows of the newest era before the loop on which all versions are compared.
REFERENCE_ROWS = 1_000


class EarlierModels:
    """Earlier versions of the base models: the first, and the last before the present one, by number.

    Args:
        features: gives the reference rows and eras that fall due.
        specs: the base models.
        loop_start: first era of the loop.
        ops: the kernels' namespace.

    Attributes:
        frozen: version number -> models as they ended, of all that are scored in eras that are not resolved yet.
    """

    def __init__(self, features: Features, specs: Sequence[ModelSpec], loop_start: int, ops: Kernels) -> None:
        self._features, self._specs, self._ops = features, tuple(specs), ops
        earlier = [int(era) for era in features.store.index if era < loop_start]
        self._reference = max(earlier) if earlier else None
        self.frozen: dict[int, dict[str, Model]] = {}
        self._boosters: dict[tuple[int, str], list[Booster]] = {}

    def begin(self, versions: Versions, models: Mapping[str, Model], era: int) -> None:
        """Put the models that start the loop in force."""
        versions.add(Version(era, self._compared(models)))

    def renew(
        self,
        versions: Versions,
        before: Mapping[str, Model],
        after: Mapping[str, Model],
        era: int,
        past: Mapping[int, NDArray[np.float64]],
        waiting: Sequence[int],
    ) -> None:
        """Freeze the version that ends, and put the refitted models in force from `era` on.

        Args:
            versions: of the gate.
            before, after: the models of the version that ends, and those of the new one.
            era: first era of the new version.
            past: payments of the refitted models in eras before their training, see `Version`.
            waiting: predicted eras whose labels are not usable yet.
        """
        number = len(versions.kept) - 1
        versions.freeze(self._compared(before))
        versions.add(Version(era, self._compared(after), past))
        wanted = {n for one in (*waiting, era) for n in versions.at(one)}
        self.frozen = {n: models for n, models in {**self.frozen, number: dict(before)}.items() if n in wanted}
        self._boosters = {key: found for key, found in self._boosters.items() if key[0] in self.frozen}

    def predictions(self, number: int, era: int) -> NDArray[np.float32]:
        """Predictions of a frozen version for a stored era, float32 [M, N]."""
        models = self.frozen[number]
        for spec in self._specs:
            if (number, spec.model_id) not in self._boosters:
                self._boosters[number, spec.model_id] = models[spec.model_id].trees.boosters()
        boosters = {spec.model_id: self._boosters[number, spec.model_id] for spec in self._specs}
        return self._evaluated(boosters, source_of(self._features, era))

    def _compared(self, models: Mapping[str, Model]) -> dict[int, NDArray[np.float16]]:
        """Standardised predictions of the reference rows, float16 [M, R], by era."""
        if self._reference is None:
            return {}
        boosters = {name: model.trees.boosters() for name, model in models.items()}
        base_MN = self._evaluated(boosters, source_of(self._features, self._reference))
        z_MN = on_host(gaussianize(np.ascontiguousarray(base_MN[:, :REFERENCE_ROWS]), self._ops))
        spread_M1 = z_MN.std(axis=1, keepdims=True)
        return {self._reference: (z_MN / np.where(spread_M1 > 0, spread_M1, 1.0)).astype(np.float16)}

    def _evaluated(self, boosters: Mapping[str, list[Booster]], source: EraSource) -> NDArray[np.float32]:
        return np.stack([predict(boosters[spec.model_id], values_of(source, spec)) for spec in self._specs])
