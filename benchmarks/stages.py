"""A whole run of configs/v5.3-cpu.toml on 600,000 rows, stage by stage, each against its own bound.

Everything is CPU time of one process with one worker, in which the engine's own clock is replaced by that of the
processor. Bounds are measured right after the run, in a process of its own: bytes that have to be moved, over the
rates at which NumPy moves such bytes on this machine; trees grown alone on matrices that are ready; splits compared and
scores computed on columns that are ready; files read by Arrow; products of matrices at the rate of a large one. A stage
that works in a better way than that may take less than its bound; one without such a bound has no goal.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.linalg import eigvalsh

from benchmarks.child import measure
from benchmarks.data import DATA_VARIABLE, ROOT
from benchmarks.data_jobs import HISTORY
from benchmarks.harness import Result, say
from eravane.calendar.timeline import Timeline
from eravane.core.config import RunConfig, load_config
from eravane.data.catalog import META_MODEL
from eravane.data.features import Features
from eravane.data.store.store import EraStore
from eravane.gate.context import thinned
from eravane.learners.forest import Forest
from eravane.loop.pool import gate_pool, read_pool
from eravane.pipeline.insights import CHUNK, EXPOSURE_ERAS
from eravane.report import load_run, write_report
from eravane.runstate.runfolder import RunFolder
from eravane.scoring.ensemble import gaussianize, one_era
from eravane.synth import PRESETS, synthesise
from eravane.zoo.residual import labels_of
from eravane.zoo.trainer import Zoo
from eravane.zoo.training import TrainTask, row_weights, train
from eravane_kernels import cpu

CONFIG = ROOT / "configs" / "v5.3-cpu.toml"
LEAST = 0.6
BANDWIDTH_BYTES = 1 << 28
WRITTEN_BYTES = 64 << 10  # at a time: measured to be the fastest
SIZES: dict[bool, dict[str, Any]] = {
    False: {"eras": 300, "rows": 2_000},
    True: {"eras": 120, "rows": 40, "features": 60, "groups": 4},
}
QUICK: dict[str, Any] = {"time": {"loop_eras": 40}, "zoo": {"trees": 3, "folds": 2, "every": 4}}


def main(quick: bool) -> list[Result]:
    """Every stage's bound as a share of the CPU time that it took."""
    place = Path(os.environ.get(DATA_VARIABLE) or Path(tempfile.gettempdir()) / "eravane-bench-data")
    place.mkdir(parents=True, exist_ok=True)
    size = SIZES[quick]
    data = place / f"stages-{size['eras']}x{size['rows']}"
    if not data.exists():
        say(f"stages: making {data}")
        made = dataclasses.replace(PRESETS["v5.3"], **size, constant_features=3 if quick else 30)
        synthesise(data, made)
    folder = place / "stages"
    shutil.rmtree(folder, ignore_errors=True)
    say("stages: kernels")
    measure("eravane.pipeline.warm:warm")  # as `make install` leaves them: no stage compiles
    say("stages: the run")
    measure("benchmarks.stages:whole", data, folder, int(quick))
    say("stages: bounds")
    measure("benchmarks.stages:bounds", data, folder)
    results = list(_judged(folder))
    shutil.rmtree(folder)
    return results


def _config(quick: bool) -> RunConfig:
    config = load_config(CONFIG)
    if quick:
        config = dataclasses.replace(
            config, **{name: dataclasses.replace(getattr(config, name), **changes) for name, changes in QUICK.items()}
        )
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, workers=1))


def whole(data: str, folder: str, quick: str) -> None:
    """The run, in a process of its own, whose stages are timed in CPU seconds."""
    from eravane.pipeline.batch import run

    clock, place = time.perf_counter, Path(folder)
    time.perf_counter = time.process_time  # of all threads: with one worker they never work at the same time
    try:
        began = time.process_time()
        run(Path(data), _config(quick == "1"), place / "run", cache=place / "cache")
        took = time.process_time() - began
    finally:
        time.perf_counter = clock
    (place / "whole.json").write_text(json.dumps(took))


@dataclass(frozen=True)
class Rates:
    """Bytes per second and floating-point operations per second of this machine.

    Attributes:
        read, copy: of plain reads and copies.
        mapped: of reading the store's features right after they were mapped.
        gather: of copying every n-th era of every tenth column of the whole store, an era of all columns at a time.
        write: of a file that is written and synced.
        product: of a large product.
    """

    read: float
    copy: float
    mapped: float
    gather: float
    write: float
    product: float

    @classmethod
    def measured(cls, folder: Path, store: EraStore, every: int) -> Rates:
        """Medians of five, by CPU time, of NumPy's own loops; a file is written in that folder."""
        one, other = np.ones(BANDWIDTH_BYTES // 8), np.zeros(BANDWIDTH_BYTES // 8)
        wide = np.ones((1_024, 2_048), dtype=np.float32)
        flops = 2 * wide.shape[0] ** 2 * wide.shape[1]
        files = [segment.features.path for segment in store.segments]
        some = np.sort(np.random.default_rng(0).permutation(len(store.columns))[: len(store.columns) // 10 + 1])
        spans = [
            (segment.values, segment.index.offsets[at], segment.index.offsets[at + 1])
            for segment in store.segments
            for at in range(0, len(segment.index), every)
        ]
        copied = sum(int(stop - start) for _, start, stop in spans) * len(some)

        files_written = iter([folder / f"written-{number}" for number in range(4)])

        def write() -> None:  # into a new file, whose pages are new: a file that was there has them already
            with next(files_written).open("wb", buffering=0) as file:
                for first in range(0, one.nbytes, WRITTEN_BYTES):
                    file.write(one.view(np.uint8)[first : first + WRITTEN_BYTES].data)
                os.fsync(file.fileno())

        written = BANDWIDTH_BYTES / spent(write, 3)
        return cls(
            BANDWIDTH_BYTES / spent(lambda: one.view(np.uint64).max()),
            BANDWIDTH_BYTES / spent(lambda: np.copyto(other, one)),
            sum(file.stat().st_size for file in files)
            / spent(lambda: [np.memmap(file, np.uint8, "r").max() for file in files]),
            copied / spent(lambda: [values_CN[some, start:stop] for values_CN, start, stop in spans]),
            written,
            flops / spent(lambda: wide @ wide.T),
        )


def spent(call: Callable[[], Any], repeats: int = 5) -> float:
    """CPU seconds of a call, the median of some after one to warm up."""
    taken = []
    for turn in range(repeats + 1):
        begin = time.process_time()
        call()
        if turn:
            taken.append(time.process_time() - begin)
    return max(statistics.median(taken), 1e-9)


def bounds(data: str, folder: str) -> None:
    """Bounds of all stages in seconds, with what they are made of; in a process of its own, after the run."""
    place = Path(folder)
    run = RunFolder.open(place / "run")
    manifest, config = run.manifest(), run.config()
    (path,) = (place / "cache" / "stores").iterdir()
    store = EraStore.open(path)
    work = _Work(Path(data), place / "cache", run, config, store, Timeline.from_manifest(manifest, store.index))
    found = {name: (seconds, how) for name, seconds, how in work.bounds(Rates.measured(place, store, config.zoo.every))}
    (place / "bounds.json").write_text(json.dumps(found))


@dataclass(frozen=True)
class _Work:
    """Amount of work of a finished run."""

    data: Path
    cache: Path
    run: RunFolder
    config: RunConfig
    store: EraStore
    timeline: Timeline

    def bounds(self, rates: Rates) -> Iterator[tuple[str, float, str]]:
        """Name of a stage, its bound in seconds, what that is."""
        store = self.store
        yield (
            "rates",
            0.0,
            f"read {rates.read / 1e9:.1f} GB/s, copy {rates.copy / 1e9:.1f} GB/s, read from a new mapping "
            f"{rates.mapped / 1e9:.1f} GB/s, copy runs {rates.gather / 1e9:.1f} GB/s, write and sync "
            f"{rates.write / 1e9:.1f} GB/s, product {rates.product / 1e9:.0f} GFLOP/s",
        )
        bytes_ = len(store.columns) * store.index.rows * np.dtype(store.dtype).itemsize
        files = sum(file.stat().st_size for file in self.data.glob("*.parquet"))
        decoding = spent(self._decode, 1)
        # Columns are placed, written, synced and read by the checksum; files are copied out of the page cache and read.
        moved = bytes_ / rates.copy + bytes_ / rates.write + files / rates.copy + (bytes_ + files) / rates.read
        yield "ingest", decoding + moved, f"decoding {decoding:.2f} s, placing, writing and digests {moved:.2f} s"
        held = sum(file.stat().st_size for file in (store.path / "segments").glob("*.arrow"))  # labels and ids, too
        yield "verify", held / rates.mapped, f"{held / 1e9:.2f} GB read from a new mapping"
        yield from self._zoo(rates)
        yield from self._selection()
        yield from self._loop(rates)
        yield from self._insights()

    def _decode(self) -> None:
        """Every column that an ingest needs: the store's features and targets, ids and eras."""
        columns = ["id", "era", *self.store.targets, *self.store.columns]
        for name in HISTORY:
            with pq.ParquetFile(self.data / name) as file:
                for group in range(file.metadata.num_row_groups):
                    for first in range(0, len(columns), 200):
                        file.read_row_group(group, columns=columns[first : first + 200])

    def _insights(self) -> Iterator[tuple[str, float, str]]:
        """Correlations with all columns and contributions on arrays that are ready, and files read."""
        features, target = Features.open(self.store.path, self.config.prepare), self.config.data.target
        predictions = self.run.path / "predictions.parquet"
        files = [predictions, self.run.path / "base_predictions.parquet", self.data / META_MODEL]
        reading = sum(spent(partial(pq.read_table, path), 3) for path in files)
        table = pq.read_table(predictions)
        label, prediction = np.array(table["era"].to_pylist()), table["prediction"].to_numpy()
        eras = self._loop_eras
        spaced = {eras[place] for place in np.linspace(0, len(eras) - 1, EXPOSURE_ERAS).round().astype(int)}
        exposing = scoring = 0.0
        for era in eras:
            p_1N, values_CN = prediction[label == f"{era:04d}"][None], np.ascontiguousarray(features.raw(era))
            label_N, one = features.labels(target, era, era), one_era(p_1N.shape[1])
            begin = time.process_time()
            if era in spaced:
                for start in range(0, len(values_CN), CHUNK):
                    cpu.exposure(p_1N, values_CN[start : start + CHUNK], one)
            middle = time.process_time()
            cpu.contribution(np.repeat(p_1N, 2, axis=0), p_1N[0].astype(np.float64), label_N, one)
            exposing, scoring = exposing + middle - begin, scoring + time.process_time() - middle
        scores = f"correlations {exposing:.2f} s, contributions {scoring:.2f} s"
        yield "insights", exposing + scoring + reading, f"{len(spaced)} eras' {scores}, files read {reading:.2f} s"

    @property
    def _trainer(self) -> Zoo:
        cache = self.cache / "boosters"
        return Zoo(self.store.path, self.config, self.timeline, xgboost_device="cpu", cache=cache)

    @property
    def _loop_eras(self) -> list[int]:
        return list(self.store.index.select(self.timeline.loop_start, self.timeline.last_era))

    def _zoo(self, rates: Rates) -> Iterator[tuple[str, float, str]]:
        from eravane.data.catalog import FeatureCatalog
        from eravane.zoo.specs import model_specs

        data = self.config.data
        catalog = FeatureCatalog.load(self.data / "features.json", sets=data.feature_sets, groups=None)
        zoo, features = self._trainer, Features.open(self.store.path, self.config.prepare)
        tasks = zoo.fold_tasks(model_specs(catalog, self.config))
        trees = sum(map(partial(self._grow, features), tasks))
        moved = sum(map(_cells_of, tasks))
        matrices = _matrix_seconds(tasks, rates)
        shown, kernels = 0, 0.0
        for task in tasks:
            rows = self.store.index.select(task.predict_first, task.predict_last)
            shown += rows.rows * len(task.specs[0].columns) * len(task.specs)
            kernels += self._predict(features, task)
        reading = shown / rates.read
        yield "zoo trees", trees, f"{len(tasks)} tasks grown alone on ready matrices"
        yield "zoo matrix", matrices, f"{moved / 1e9:.2f} GB copied in runs and checked"
        yield "zoo predictions", kernels + reading, f"{shown / 1e9:.2f} GB read, splits compared {kernels:.2f} s"
        yield "zoo", trees + matrices + kernels + reading, "these three"

    def _grow(self, features: Features, task: TrainTask) -> float:
        """CPU seconds of a task's trees alone."""
        columns, eras = task.specs[0].columns, (task.train_first, task.train_last)
        matrix = task.learner.matrix(features.table(columns, *eras, every=task.every))
        label_N = labels_of(features, task.specs[0], *eras, every=task.every)
        weight_N = row_weights(task, features.era_of_rows(*eras, every=task.every))
        begin = time.process_time()
        task.learner.fit(matrix, label_N, weight_N, trees=task.trees, seed=1)
        return time.process_time() - begin

    def _predict(self, features: Features, task: TrainTask) -> float:
        """CPU seconds of the predictions of a task's models alone."""
        found = 0.0
        for block in train(task).blocks.values():  # from the cache of the run
            forest = Forest.read(block)
            assert forest is not None
            for frame in features.each(task.predict_first, task.predict_last, task.specs[0].columns):
                begin = time.process_time()
                forest.predict(frame.values)
                found += time.process_time() - begin
        return found

    def _selection(self) -> Iterator[tuple[str, float, str]]:
        table = pq.read_table(self.run.path / "oof.parquet")
        names = [name for name in table.column_names if name not in ("id", "era")]
        label = np.array(table["era"].to_pylist())
        values_MN = np.stack([table[name].to_numpy() for name in names]).astype(np.float32)
        features, target = Features.open(self.store.path, self.config.prepare), self.config.data.target
        found = 0.0
        for era in self.store.index.select(self.timeline.folds[0].predict_first, self.timeline.selection_end):
            base_MN = np.ascontiguousarray(values_MN[:, label == f"{era:04d}"])
            label_N, one = features.labels(target, era, era), one_era(base_MN.shape[1])
            meta_N = base_MN[0].astype(np.float64)
            begin = time.process_time()
            cpu.numerai_corr(base_MN, label_N, one)
            cpu.contribution(base_MN, meta_N, label_N, one)
            cpu.gram(gaussianize(base_MN, cpu), one)
            found += time.process_time() - begin
        with tempfile.TemporaryDirectory() as folder:
            written = spent(lambda: pq.write_table(table, Path(folder) / "t.parquet"), 3)
        yield "selection", found + written, f"scores alone {found:.2f} s, out-of-fold file written {written:.2f} s"

    def _loop(self, rates: Rates) -> Iterator[tuple[str, float, str]]:
        specs, _ = read_pool(self.run.path)
        store, timeline, loop = self.store, self.timeline, self.config.loop
        features, zoo = Features.open(store.path, self.config.prepare), self._trainer
        starts = zoo.start_tasks(specs, timeline.loop_start)
        eras = self._loop_eras
        refits = [era for era in eras if era > eras[0] and (era - eras[0]) % loop.every == 0]
        later = [
            dataclasses.replace(task, half_life=loop.half_life)
            for era in refits
            for task in zoo.start_tasks(specs, era)
        ]
        for name, tasks in (("first models", starts), ("loop trees", later)):
            alone, moved = sum(map(partial(self._grow, features), tasks)), sum(map(_cells_of, tasks))
            seconds = alone + _matrix_seconds(tasks, rates)
            yield (
                name,
                seconds,
                f"{len(tasks)} tasks grown alone {alone:.2f} s, {moved / 1e9:.2f} GB copied in runs and checked",
            )
        _, cells = gate_pool(specs, store.columns)
        union = len(set(np.concatenate([thinned(np.asarray(cell)) for cell in cells.values()]).tolist()))
        rows = store.index.rows / len(store.index)
        squares = [
            np.asarray(np.corrcoef(np.random.default_rng(0).normal(size=(len(thinned(c)), 500))))
            for c in cells.values()
        ]
        roots = spent(
            lambda: [eigvalsh(square, subset_by_index=[len(square) - 2, len(square) - 1]) for square in squares]
        )
        facts = 2 * union**2 * rows / rates.product + len(store.columns) * rows / rates.read + roots
        how = f"a product of {union} columns, eigenvalues of {len(squares)} cells and the era read once"
        before = len(store.index.select(timeline.folds[0].predict_first, timeline.loop_start - 1))
        yield "history", before * facts, how
        yield "loop decide", (len(eras) + 1) * facts, how
        kernels = sum(self._predict(features, dataclasses.replace(
            task, predict_first=timeline.loop_start, predict_last=timeline.last_era)) for task in starts)  # fmt: skip
        shown = sum(len(spec.columns) for spec in specs) * sum(store.index.select(eras[0], eras[-1]).counts)
        ranking, tasks = self._ranking(), [*starts, *later]
        blocks = [block for task in tasks for block in train(task).blocks.values()]  # from the cache of the run
        reading = sum(spent(partial(Forest.read, block), 3) for block in blocks)
        how = f"{shown / 1e9:.2f} GB read, splits {kernels:.2f} s, predictions as ranks {ranking:.2f} s, "
        how += f"{len(blocks)} models read {reading:.2f} s"
        yield "loop predict", kernels + shown / rates.read + ranking + reading, how

    def _ranking(self) -> float:
        """CPU seconds in which the loop's predictions become normal quantiles of ranks: with that the stage ends."""
        found = 0.0
        with pq.ParquetFile(self.run.path / "base_predictions.parquet") as file:
            names = [name for name in file.schema_arrow.names if name not in ("id", "era")]
            for group in range(file.metadata.num_row_groups):  # one an era
                table = file.read_row_group(group, columns=names)
                base_MN = np.stack([table[name].to_numpy() for name in names])
                begin = time.process_time()
                gaussianize(base_MN, cpu)
                found += time.process_time() - begin
        return found


def _cells_of(task: TrainTask) -> int:
    """Cells of a task's matrix."""
    return task.rows * len(task.specs[0].columns)


def _matrix_seconds(tasks: Sequence[TrainTask], rates: Rates) -> float:
    """What matrices take at least: every n-th era copied, and all cells checked; all eras are read where they lie."""
    copied = sum(_cells_of(task) for task in tasks if task.every > 1)
    return copied / rates.gather + sum(map(_cells_of, tasks)) / rates.read


def _judged(folder: Path) -> Iterator[Result]:
    """Bound over time of every stage, the longest first; without a goal where there is no bound."""
    whole, bound_of = (json.loads((folder / f"{name}.json").read_text()) for name in ("whole", "bounds"))
    yield Result("whole_run", whole, "s", None, "lower", f"CPU, one worker; {bound_of.pop('rates')[1]}")
    took: dict[str, float] = {}
    for event in load_run(folder / "run").events:
        if event["event"] == "stage":
            took[event["stage"]] = event["seconds"]
            took |= {f"zoo {name}": seconds for name, seconds in event.get("tasks", {}).items()}
        elif event["event"] == "era":
            for name, seconds in event["parts"].items():
                took[f"loop {name}"] = took.get(f"loop {name}", 0.0) + seconds
        elif event["event"] == "usage":
            took["loop saving"] = event["cpu"]
    took["loop saving"] -= sum(
        seconds for name, seconds in took.items() if name.startswith("loop ") and name != "loop saving"
    )
    took["report"] = spent(lambda: write_report(folder / "run"), 1)
    for name, seconds in sorted(took.items(), key=lambda entry: -entry[1]):
        bound, how = bound_of.get(name, (None, "no bound in bytes or products"))
        detail = f"{seconds:.2f} s, {seconds / whole:.1%} of the run; {how}"
        if bound is None:
            yield Result(f"{name.replace(' ', '_')}_share", seconds / whole, "of the run", None, "lower", detail)
        else:
            share = bound / max(seconds, 1e-9)
            yield Result(name.replace(" ", "_"), share, "of its bound", LEAST, "higher", f"{detail}: {bound:.2f} s")
