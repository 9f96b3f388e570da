"""Features on a device whose arrays are kept apart from the host's as strictly as a GPU's are, its kernels emulated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import xgboost as xgb

from eravane.backend.cpu import CpuBackend
from eravane.backend.protocol import Part
from eravane.core.config import GateConfig, PrepareConfig
from eravane.data import resident as module
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.data.resident import Residence
from eravane.data.store.store import EraStore
from eravane.gate.context import ContextBuilder
from eravane.gate.outcomes import GateModel
from eravane.learners.forest import Predictor
from eravane.learners.registry import predict
from eravane.loop.sources import digest_of_rows, source_of
from eravane.scoring.neutralization import Neutraliser
from eravane_kernels import cpu, cuda
from eravane_kernels.cuda.runtime import active, upload
from tests.support.emulator.arrays import DeviceArray
from tests.support.emulator.devices import on
from tests.support.made_store import FEATURES, Dataset

COLUMNS = FEATURES[2:7]
PREPARED = [
    PrepareConfig(),
    PrepareConfig(impute="median", outliers="winsorize", indicators=True, missing_eras="impute"),
    PrepareConfig(impute="mean", outliers="std", bounds="window", window=3, missing_eras="impute"),
    PrepareConfig(impute="knn", outliers="mad", missing_eras="impute"),
]


class Emulated(CpuBackend):
    """Arrays of the emulator."""

    name = "emulated"

    @property
    def kernels(self) -> Any:
        """The CUDA kernels."""
        return cuda

    def hold(self, shape: tuple[int, int], dtype: str) -> Any:
        """Memory that nobody has written, columns at multiples of 128 bytes."""
        step = -(-shape[1] * np.dtype(dtype).itemsize // 128) * 128 // np.dtype(dtype).itemsize
        return active().xp.empty((shape[0], step), dtype=np.dtype(dtype))[:, : shape[1]]

    def fill(self, matrix: Any, parts: Iterable[Part]) -> None:
        """Sends parts."""
        for start, values in parts:
            matrix[:, start : start + values.shape[1]] = upload(values)

    def stream(self, matrices: Iterable[Any]) -> Iterator[Any]:
        """Sends matrices."""
        yield from map(upload, matrices)

    def to_device(self, values: Any) -> Any:
        """A copy."""
        return upload(values)

    def columns_of(self, matrix: Any, places: Any, rows: slice) -> Any:
        """A copy, as of uneven columns."""
        return active().xp.take(matrix[:, rows], upload(places), axis=0)

    def joined(self, parts: Sequence[Any]) -> Any:
        """Side by side."""
        return active().xp.concatenate(list(parts), axis=1)


@pytest.fixture(scope="module", params=[False, True], ids=["int8", "float32"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EraStore:
    folder = tmp_path_factory.mktemp("emulated")
    return ingest(Dataset.make(floats=request.param).write(folder / "data"), folder / "store")


@pytest.fixture(params=[Residence("whole", len(FEATURES)), Residence("eras")], ids=str)
def device(request: pytest.FixtureRequest, store: EraStore) -> Iterator[Emulated]:
    backend = Emulated()
    with on(2):
        module.resident(store, backend, request.param)
        yield backend
        module.forget(store, backend.name)


@pytest.mark.parametrize("config", PREPARED, ids=["as stored", "era", "window", "nearest"])
def test_features_are_prepared_on_the_device(store: EraStore, device: Emulated, config: PrepareConfig) -> None:
    there, here = Features.open(store.path, config, device), Features.open(store.path, config)
    for one, other in zip(there.each(5, 7, COLUMNS), here.each(5, 7, COLUMNS), strict=True):
        assert isinstance(one.values, DeviceArray)
        assert one.values.dtype == other.values.dtype
        np.testing.assert_allclose(one.values.get(), other.values, rtol=1e-6)
        assert one.columns == other.columns
    live, live_here = there.live(COLUMNS), here.live(COLUMNS)
    assert isinstance(live.values, DeviceArray)
    assert there.live_rows().values is there.live_rows().values  # sent once
    np.testing.assert_allclose(live.values.get(), live_here.values, rtol=1e-6)


def test_eras_are_described_predicted_and_neutralised_there(store: EraStore, device: Emulated) -> None:
    there, here = (Features.open(store.path, PrepareConfig(), backend) for backend in (device, None))
    model = GateModel("m", "all", "g")
    cells = {("all", "g"): np.arange(len(FEATURES))}
    facts = [
        ContextBuilder([model], cells, ops, GateConfig()).facts(found.raw(6), 6)
        for ops, found in ((cuda, there), (cpu, here))
    ]
    np.testing.assert_allclose(facts[0].model_MS, facts[1].model_MS, rtol=1e-9)
    np.testing.assert_allclose(facts[0].marginal_KF, facts[1].marginal_KF, rtol=1e-6)
    values_CN = here.era(6, COLUMNS).values
    matrix = xgb.DMatrix(values_CN.T, np.random.default_rng(0).random(values_CN.shape[1]))
    block = bytes(xgb.train({"max_depth": 3, "nthread": 1}, matrix, 6).save_raw("ubj"))
    ours_N = predict([Predictor(block), Predictor(block)], there.era(6, COLUMNS).values)
    np.testing.assert_array_equal(ours_N, predict([Predictor(block), Predictor(block)], values_CN))
    margin_N = np.random.default_rng(1).random(values_CN.shape[1]).astype(np.float32)
    np.testing.assert_array_equal(
        Predictor(block).margin(there.era(6, COLUMNS).values, margin_N), Predictor(block).margin(values_CN, margin_N)
    )
    mixed_N = np.random.default_rng(2).random(values_CN.shape[1])
    neutral = [
        Neutraliser(COLUMNS, 0.5, ops).apply(mixed_N, found.era(6, COLUMNS).values)
        for ops, found in ((cuda, there), (cpu, here))
    ]
    assert isinstance(neutral[0], DeviceArray)
    np.testing.assert_allclose(neutral[0].get(), neutral[1], atol=1e-9)
    for era in (6, 15):
        assert digest_of_rows(source_of(there, era)) == digest_of_rows(source_of(here, era))
