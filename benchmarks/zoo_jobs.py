"""Jobs measured by `benchmarks.zoo`, each in a process of its own, so that memory peaks are separate."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xgboost as xgb
from distributed import Client
from numpy.typing import NDArray

from benchmarks.child import SAMPLE_SECONDS, anonymous_memory
from eravane.calendar.clock import Clock
from eravane.calendar.folds import walk_forward
from eravane.calendar.horizon import Horizon
from eravane.calendar.timeline import Timeline, tree_lags
from eravane.core.config import RunConfig, parse_config
from eravane.core.memory import cores
from eravane.core.seeds import derive_seed
from eravane.data.catalog import FeatureCatalog
from eravane.data.features import Features
from eravane.data.ingest import ingest
from eravane.data.store.store import EraStore
from eravane.learners.registry import make_learner
from eravane.synth import SynthConfig, synthesise
from eravane.zoo.cluster import local_cluster
from eravane.zoo.oof import out_of_fold
from eravane.zoo.specs import ModelSpec, model_specs
from eravane.zoo.trainer import Zoo, balanced
from eravane.zoo.training import TrainTask

TARGETS = ("target_ender_20", "target_cyrusd_20", "target_jasper_20", "target_ralph_20", "target_waldo_20")
FOLDS = 4


@dataclass(frozen=True)
class Size:
    """How large the made data and the models are."""

    eras: int
    rows: int
    features: int
    trees: int
    groups: int = 13


@dataclass(frozen=True)
class Work:
    """One zoo: data, size, and how many targets and seeds."""

    folder: Path
    size: Size
    targets: int = 1
    seeds: int = 1
    workers: int = 0
    learner: str = "xgboost"

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return parse_config(
            {
                "data": {"target": TARGETS[0]},
                "zoo": {
                    "targets": list(TARGETS[: self.targets]),
                    "seeds": self.seeds,
                    "trees": self.size.trees,
                    "learner": self.learner,
                },
                "compute": {"workers": self.workers, "device": "cpu"},
            }
        )

    @property
    def timeline(self) -> Timeline:
        """Four folds over the newer two thirds of the eras."""
        clock, last = Clock.of(Horizon.required(TARGETS[0])), self.size.eras
        chunk = last // 6
        folds = walk_forward(1, last, chunk=chunk, tree_lag=clock.tree_lag, newest=FOLDS)
        lags = tree_lags(self.config, clock)
        return Timeline(1, last, last, last + 1, last + 1, clock, lags, tuple(folds))

    @property
    def specs(self) -> list[ModelSpec]:
        """Every model of the zoo."""
        return model_specs(FeatureCatalog.load(self.folder / "data" / "features.json"), self.config)

    def zoo(self, config: RunConfig | None = None) -> Zoo:
        """The zoo, without a cache."""
        config = config or self.config
        return Zoo(self.folder / "store", config, self.timeline, xgboost_device="cpu", cache=None)


@dataclass(frozen=True)
class Measured:
    """Cost of a job: seconds that passed, seconds of CPU, peak of anonymous memory above the imports, and facts."""

    wall: float
    cpu: float
    peak: int
    facts: dict[str, Any]


def prepare(folder: Path, size: Size) -> None:
    """Make the dataset and its store."""
    made = SynthConfig(
        eras=size.eras, rows=size.rows, features=size.features, groups=size.groups, targets=TARGETS,
        main_target=TARGETS[0], snr=0.3, seed=1,
    )  # fmt: skip
    synthesise(folder / "data", made)
    columns = FeatureCatalog.load(folder / "data" / "features.json").columns
    ingest(folder / "data", folder / "store", columns=list(columns))


def measure(job: Callable[[Work], dict[str, Any]], work: Work) -> Measured:
    """Run a job in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(job, work, theirs))
    process.start()
    theirs.close()
    try:
        found: Measured = ours.recv()
    finally:
        process.join()
    return found


def _measured(job: Callable[[Work], dict[str, Any]], work: Work, out: Any) -> None:
    before, highest, ended = anonymous_memory(), [0], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            highest[0] = max(highest[0], anonymous_memory())

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    wall, cpu = time.perf_counter(), time.process_time()
    facts = job(work)
    wall, cpu = facts.pop("wall", time.perf_counter() - wall), facts.pop("cpu", time.process_time() - cpu)
    ended.set()
    sampler.join()
    out.send(Measured(wall, cpu, max(1, highest[0] - before), facts))


def ours(work: Work) -> dict[str, Any]:
    """The zoo in threads: matrix, growing and predicting seconds, and a few models' predictions."""
    zoo, specs = work.zoo(), work.specs
    _warm(zoo, specs, work.workers)
    features = Features.open(work.folder / "store", work.config.prepare)
    wall, cpu = time.perf_counter(), time.process_time()
    found = out_of_fold(zoo, specs, work.timeline.folds, features, folder=work.folder)
    taken = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**taken, "parts": found.parts, "models": len(specs) * FOLDS, "shown": _shown(found.values, specs)}


def _warm(zoo: Zoo, specs: Sequence[ModelSpec], workers: int) -> None:
    """Load what is compiled, in every worker: the cheapest tasks, before the clock runs."""
    for _ in zoo.run(balanced(zoo.fold_tasks(specs), 1)[-2 * workers :]):
        pass


def on_dask(work: Work) -> dict[str, Any]:
    """The zoo on a cluster of this machine, once it is up."""
    started = time.perf_counter()
    compute = parse_config({"compute": {"scheduler": "local", "workers": work.workers}}).compute
    with local_cluster(compute, "cpu", lambda _: None) as there:
        up = time.perf_counter() - started
        config = work.config
        zoo, specs = work.zoo(parse_config({**_plain(config), "compute": {"scheduler": there.scheduler}})), work.specs
        features = Features.open(work.folder / "store", config.prepare)
        _warm(zoo, specs, work.workers)
        with Client(there.scheduler) as client:
            begin, cpu = time.perf_counter(), _spent(client)
            found = out_of_fold(zoo, specs, work.timeline.folds, features)
            taken = {"wall": time.perf_counter() - begin, "cpu": _spent(client) - cpu}
        return {**taken, "start": up, "shown": _shown(found.values, specs)}


def _spent(client: Client) -> float:
    """CPU seconds of this process, the scheduler's, and of all workers so far."""
    return time.process_time() + float(sum(client.run(time.process_time).values()))


def straightforward(work: Work) -> dict[str, Any]:
    """The peer: per model, pandas columns to `XGBRegressor.fit`, same parameters, same cores."""
    frame = _frame(work)
    rows_of = _rows(frame["era"].to_numpy())
    params = dict(work.zoo().learner.params)
    params.pop("nthread")

    def one(job: tuple[ModelSpec, Any]) -> tuple[str, int, NDArray[np.float32]]:
        spec, fold = job
        used = frame.iloc[rows_of(fold.train_first, fold.train_last)]
        used = used[used[spec.target].notna()]
        seed = derive_seed(0, spec.model_id, fold.train_last)
        model = xgb.XGBRegressor(n_estimators=work.size.trees, n_jobs=1, random_state=seed, **params)
        model.fit(used[list(spec.columns)], used[spec.target])
        shown = frame.iloc[rows_of(fold.predict_first, fold.predict_last)]
        return spec.model_id, fold.predict_first, model.predict(shown[list(spec.columns)])

    specs = work.specs
    jobs = sorted(
        ((spec, fold) for spec in specs for fold in work.timeline.folds),
        key=lambda job: -len(job[0].columns) * job[1].train_last,
    )
    with ThreadPoolExecutor(work.workers or cores()) as pool:
        done = list(pool.map(one, jobs))
    by_model: dict[str, dict[int, NDArray[np.float32]]] = {spec.model_id: {} for spec in specs}
    for name, first, values in done:
        by_model[name][first] = values
    joined = {name: np.concatenate([found[first] for first in sorted(found)]) for name, found in by_model.items()}
    return {"shown": _shown(joined, specs)}


def bound(work: Work) -> dict[str, Any]:
    """Tree-growing alone, on ready matrices, one thread per core: seconds of CPU and of threads."""
    features = Features.open(work.folder / "store", work.config.prepare)
    tasks = balanced(work.zoo().fold_tasks(work.specs), 1)

    def one(task: TrainTask) -> tuple[float, float]:
        columns, first, last = task.specs[0].columns, task.train_first, task.train_last
        matrix = task.learner.matrix(features.table(columns, first, last))
        label_N = np.nan_to_num(features.labels(task.specs[0].target, first, last), nan=0.5)
        wall, cpu = time.perf_counter(), time.thread_time()
        task.learner.fit(matrix, label_N, None, trees=task.trees, seed=1)
        return time.perf_counter() - wall, time.thread_time() - cpu

    with ThreadPoolExecutor(work.workers or cores()) as pool:
        times = np.array(list(pool.map(one, tasks)))
    return {"grow_wall": float(times[:, 0].sum()), "grow_cpu": float(times[:, 1].sum())}


def wide(work: Work) -> dict[str, Any]:
    """One model on all columns with column sampling .1, by XGBoost and by LightGBM: CPU seconds and predictions."""
    store = EraStore.open(work.folder / "store")
    features, fold = Features.open(store.path, work.config.prepare), work.timeline.folds[-1]
    columns, first, last = store.columns, fold.train_first, fold.train_last
    label = features.labels(TARGETS[0], first, last)
    found: dict[str, Any] = {}
    for name in ("xgboost", "lightgbm", "levels"):
        learner, _ = make_learner(parse_config({"zoo": {"learner": name}}).zoo, "cpu")
        begin = time.thread_time()
        matrix = learner.matrix(features.table(columns, first, last))
        built = time.thread_time() - begin
        begin, seeds = time.thread_time(), (100, 101, 102)
        blocks = [learner.fit(matrix, label, None, trees=work.size.trees, seed=seed) for seed in seeds]
        found[name] = {"matrix": built, "grow": (time.thread_time() - begin) / len(seeds), "blocks": blocks}
    return found


def _frame(work: Work) -> pd.DataFrame:
    whole = pd.concat(pd.read_parquet(work.folder / "data" / f"{name}.parquet") for name in ("train", "validation"))
    whole["era"] = whole["era"].astype(int)
    return whole.sort_values("era", kind="stable")


def _rows(era_N: NDArray[np.int64]) -> Callable[[int, int], slice]:
    return lambda first, last: slice(int(np.searchsorted(era_N, first)), int(np.searchsorted(era_N, last, "right")))


def _shown(values: Any, specs: Sequence[ModelSpec]) -> dict[str, NDArray[np.float32]]:
    """Predictions of the whole sets on the first target, to be compared."""
    names = [spec.model_id for spec in specs if spec.group == "all" and spec.target == TARGETS[0] and spec.seed == 0]
    return {name: np.array(values[name]) for name in names}


def _plain(config: RunConfig) -> dict[str, Any]:
    return {
        "data": {"target": config.data.target},
        "zoo": {
            "targets": list(config.zoo.targets),
            "seeds": config.zoo.seeds,
            "trees": config.zoo.trees,
            "learner": config.zoo.learner,
        },
    }


def spin(seconds: float) -> None:
    """Keep one core busy, as another program would."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def busy_neighbour() -> multiprocessing.process.BaseProcess:
    """Start a busy process that runs for ten minutes unless it is ended."""
    process = multiprocessing.get_context("spawn").Process(target=spin, args=(600.0,), daemon=True)
    process.start()
    time.sleep(1.0)
    return process
