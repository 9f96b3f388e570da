"""An era decided on a device: ranks and mix stay there, and the prediction is that of the CPU."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import norm, rankdata

from eravane.gate.gate import MetaLearner
from eravane.gate.outcomes import EraFacts
from eravane.loop.decision import Decision, decide
from eravane.scoring.ensemble import to_prediction
from eravane_kernels import cpu, cuda
from tests.support.emulator.arrays import DeviceArray
from tests.support.emulator.devices import ANY_DEVICE, on

OPEN_M = np.array([True, False, True, True, True])
WEIGHT_M = np.array([0.25, 0.0, 0.5, 0.0, 0.25])


class Fixed:
    """A gate of fixed weights."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def decide(self, _era: int, _facts: EraFacts) -> Any:
        return OPEN_M

    def weigh(self, _era: int, _facts: EraFacts, _open_M: Any, C_MM: Any, dispersion_M: Any) -> Any:
        self.seen += [C_MM, dispersion_M]
        return WEIGHT_M


def _decided(base_MN: Any, ops: Any) -> tuple[Decision, list[Any]]:
    gate = Fixed()
    return decide(cast(MetaLearner, gate), 7, cast(EraFacts, None), lambda _: base_MN, ops), gate.seen


@pytest.mark.parametrize("device", ANY_DEVICE)
@pytest.mark.parametrize("rows", [2, 300])
def test_a_device_decides_an_era_as_the_cpu_does(device: Any, rows: int) -> None:
    base_MN = np.random.default_rng(rows).normal(size=(5, rows)).astype(np.float32)
    base_MN[:, rows // 2 :] = base_MN[:, : rows - rows // 2]  # every row twice
    base_MN[1] = np.nan
    here, seen_here = _decided(base_MN, cpu)
    with on(device) as runtime:
        there, seen_there = _decided(base_MN, cuda)
        assert isinstance(there.mixed_N, runtime.xp.ndarray)
        assert not isinstance(seen_there[0], DeviceArray)
        prediction_N = to_prediction(there.mixed_N, cast(Any, cuda))
        mixed_N = runtime.host(there.mixed_N)
    np.testing.assert_array_equal(prediction_N, to_prediction(here.mixed_N, cpu))
    np.testing.assert_allclose(mixed_N, here.mixed_N, rtol=0, atol=2e-12)
    for found, wanted in zip(seen_there, seen_here, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)
        assert np.isnan(found[1]).all()
    z_MN = norm.ppf((rankdata(np.nan_to_num(base_MN.astype(np.float64)), axis=1) - 0.5) / rows)
    np.testing.assert_allclose(here.mixed_N, WEIGHT_M @ z_MN, atol=1e-9)
