"""The data layer at the width of v5.3 against pyarrow, pandas and NumPy: memory, speed, views, matrices, kills."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost as xgb

from benchmarks.child import Cost, anonymous_memory, measure
from benchmarks.data_jobs import HISTORY, columns_of
from benchmarks.harness import Job, Result, say, seconds
from eravane.data.store.store import EraStore
from eravane.learners.xgboost import LEVELS, quantile_matrix, resolve_params
from eravane.synth import synthesise
from eravane.synth.config import PRESETS

DATA_VARIABLE = "ERAVANE_BENCH_DATA"
GIGABYTE = 1e9
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Size:
    """Sizes of the data, and repetitions.

    Attributes:
        eras: eras of the two datasets of the memory test; the larger serves every other test.
        rows: rows per era.
        group: rows of the largest row group (0: skip the file that has one).
        window: eras of the window, and its columns.
        repeats: rounds of everything that is timed.
        kills: pytest selection of the kill tests.
        batch: whether to run the whole batch under its memory limit.
    """

    eras: tuple[int, int]
    rows: int
    group: int
    window: tuple[int, int]
    repeats: int
    kills: str
    batch: bool


FULL = Size((60, 120), 5_000, 1_048_576, (100, 780), 5, "full", True)
QUICK = Size((30, 40), 60, 0, (30, 780), 1, "not full", False)


def main(quick: bool) -> list[Result]:
    """Every result of the data layer."""
    size = QUICK if quick else FULL
    folder = Path(os.environ.get(DATA_VARIABLE) or Path(tempfile.gettempdir()) / "eravane-bench-data")
    folder.mkdir(parents=True, exist_ok=True)
    datasets = [_dataset(folder, eras, size.rows) for eras in size.eras]
    results = [*_ingest(folder, datasets, size), *_opening(folder, size), *_matrix(folder, size), *_kills(size)]
    if size.batch:
        results += _batch(folder, datasets[-1])
    return results


def _dataset(folder: Path, eras: int, rows: int) -> Path:
    """Made data of v5.3's width, one row group per file; kept for the next run."""
    path = folder / f"v5.3-{eras}x{rows}"
    if not path.exists():
        say(f"data: making {path}")
        synthesise(path, dataclasses.replace(PRESETS["v5.3"], eras=eras, rows=rows, row_group_eras=eras))
    return path


def _widest_group(folder: Path, source: Path, rows: int) -> Path:
    """A dataset whose train file has one row group of `rows` rows: the source's eras over and over under new names."""
    path = folder / f"group-{rows}"
    if path.exists():
        return path
    say(f"data: making {path}")
    part = folder / "group.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    for name in ("features.json", "live.parquet"):
        shutil.copyfile(source / name, part / name)
    history = pa.concat_tables([pq.read_table(source / name) for name in HISTORY])
    copies = [_renamed(history, turn) for turn in range(-(-rows // history.num_rows) + 1)]
    whole = pa.concat_tables(copies)
    pq.write_table(whole.slice(0, rows), part / "train.parquet", row_group_size=rows)
    last = np.flatnonzero(np.asarray(whole["era"]) > np.asarray(whole["era"][rows - 1 : rows])[0])[:20_000]
    pq.write_table(whole.slice(int(last[0]), last.size), part / "validation.parquet")
    part.rename(path)
    return path


def _renamed(history: pa.Table, turn: int) -> pa.Table:
    """A copy of the rows as later eras with ids of their own."""
    eras = np.array(history["era"].to_pylist(), dtype=int)
    names = {"era": [f"{era:04d}" for era in eras + turn * int(eras.max())]}
    names["id"] = [f"{name}{turn}" for name in history["id"].to_pylist()]
    for name, values in names.items():
        position = history.schema.get_field_index(name)
        history = history.set_column(position, name, pa.array(values, pa.string()))
    return history


def _ingest(folder: Path, datasets: list[Path], size: Size) -> list[Result]:
    say("data: ingest")
    shutil.rmtree(folder / "store", ignore_errors=True)
    small = measure("benchmarks.data_jobs:take_in", datasets[0], _fresh(folder / "small"))
    shutil.rmtree(folder / "small")
    decoding, blocks, taking = [], [], []
    for _ in range(size.repeats):
        decoding.append(measure("benchmarks.data_jobs:decode", datasets[1]))
        blocks.append(measure("benchmarks.data_jobs:decode_in_blocks", datasets[1]))
        taking.append(measure("benchmarks.data_jobs:take_in", datasets[1], _fresh(folder / "store")))
    anonymous = max(cost.peak for cost in taking)
    rows = [sum(pq.read_metadata(path / name).num_rows for name in HISTORY) for path in datasets]
    results = [
        Result(
            "ingest_peak_anonymous", anonymous / GIGABYTE, "GB", 1.5, "lower", f"{rows[1]:,} rows, a row group a file"
        ),
        Result(
            "ingest_peak_growth_with_rows",
            anonymous / small.peak,
            "x",
            None,
            "lower",
            f"{rows[0]:,} rows: {small.peak / GIGABYTE:.2f} GB; {rows[1]:,} rows: {anonymous / GIGABYTE:.2f} GB",
        ),
        _share("ingest_speed_of_decoding", decoding, taking, 0.4, lambda cost: cost.seconds, "wall"),
        _share("ingest_speed_of_decoding_cpu", decoding, taking, 0.4, lambda cost: cost.cpu, "CPU"),
        _share("ingest_speed_of_decoding_blocks_cpu", blocks, taking, None, lambda cost: cost.cpu, "CPU"),
    ]
    if size.group:
        data = _widest_group(folder, datasets[1], size.group)
        widest = measure("benchmarks.data_jobs:take_in", data, _fresh(folder / "widest"))
        shutil.rmtree(folder / "widest")
        detail = f"train.parquet is one row group of {size.group:,} rows"
        results.append(Result("ingest_peak_anonymous_widest_group", widest.peak / GIGABYTE, "GB", 1.5, "lower", detail))
    say("data: pandas")
    frame = measure("benchmarks.data_jobs:read_with_pandas", datasets[1])
    share = anonymous / frame.peak
    detail = f"ingest {anonymous / GIGABYTE:.2f} GB, pandas to float32 {frame.peak / GIGABYTE:.2f} GB"
    return [*results, Result("ingest_peak_of_pandas_peak", share, "x", 0.25, "lower", detail)]


def _fresh(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return path


def _share(
    name: str,
    decoding: list[Cost],
    taking: list[Cost],
    goal: float | None,
    time_of: Callable[[Cost], float],
    kind: str,
) -> Result:
    """Throughput of ingest as a share of that of decoding alone, medians of rounds in turn."""
    ours, peer = (statistics.median(map(time_of, costs)) for costs in (taking, decoding))
    synced = statistics.median(cost.synced for cost in taking)
    detail = f"{kind} time: decode {peer:.2f} s, ingest {ours:.2f} s and {synced:.2f} s in fsync"
    return Result(name, peer / ours, "x", goal, "higher", detail)


def _opening(folder: Path, size: Size) -> list[Result]:
    say("data: opening and windows")
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        store = EraStore.open(folder / "store")
        times.append(time.perf_counter() - begin)
    eras, columns = size.window
    names = columns_of(folder / "store", columns)
    before, begin = anonymous_memory(), time.perf_counter()
    window = store.window(1, eras, names)
    table = window.arrow()
    taken, grown = time.perf_counter() - begin, anonymous_memory() - before
    cells = table.num_rows * table.num_columns
    return [
        Result(
            "open_store", 1e3 * statistics.median(times), "ms", 50, "lower", f"wall, {len(store.segments)} segments"
        ),
        Result(
            "window_resident_growth",
            grown / cells,
            "B/cell",
            0.05,
            "lower",
            f"{len(window.index)} eras x {len(names)} columns of {cells / 1e6:,.0f} MB as a table: "
            f"{grown / 1e6:.1f} MB and {1e3 * taken:.0f} ms",
        ),
    ]


def _matrix(folder: Path, size: Size) -> list[Result]:
    """XGBoost's matrix from the store's columns and from copies in C order, both by a reference matrix."""
    say("data: XGBoost's matrix")
    store = EraStore.open(folder / "store")
    window = store.window(1, size.window[0] // 2, columns_of(folder / "store", size.window[1]))
    table, value_CN, (params, _) = window.arrow(), window.frame().values, resolve_params({}, "cpu")
    whole = {kind: np.ascontiguousarray(value_CN.T, dtype=kind) for kind in ("int8", "float32")}
    levels = np.repeat(LEVELS[:, None], table.num_columns, axis=1)
    reference = xgb.QuantileDMatrix(levels, np.zeros(LEVELS.size), nthread=1)

    def binned(rows: Any) -> Any:
        return xgb.QuantileDMatrix(rows, ref=reference, nthread=1)

    def binned_copy(copying: Callable[[], Any]) -> Any:
        return binned(copying())

    jobs = [Job("from the store", lambda: quantile_matrix(table, params))]
    for kind, rows in whole.items():
        copying = partial(np.ascontiguousarray, value_CN.T, dtype=kind)
        jobs.append(Job(f"from a C-order {kind} copy", partial(binned, rows)))
        jobs.append(Job(f"and making the {kind} copy", partial(binned_copy, copying)))
    ours, *peers = seconds(jobs, size.repeats)
    names = ["xgboost_matrix_vs_c_order", "xgboost_matrix_vs_making_a_c_order_copy"]
    names += [f"{name}_float32" for name in names]
    goals = [1.15, None] * 2
    where = f"{table.num_rows:,} x {table.num_columns}, one thread"
    return [
        Result(name, peer / ours, "x", goal, "higher", f"{where}: {ours:.2f} s; {job.name} {peer:.2f} s")
        for name, goal, job, peer in zip(names, goals, jobs[1:], peers, strict=True)
    ]


def _kills(size: Size) -> list[Result]:
    """kill -9 at random steps of ingest and append: how many of the proofs pass."""
    say("data: kills")
    command = [sys.executable, "-m", "pytest", "-q", "-m", size.kills, "tests/data/store/test_kill.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    summary = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-200:]
    detail = f"20 kills each of ingest and append: {summary}" if size.kills == "full" else summary
    return [Result("kills_survived", float(done.returncode == 0), "all", 1, "higher", detail)]


def _batch(folder: Path, data: Path) -> list[Result]:
    """configs/v5.3-cpu.toml on the larger dataset, its anonymous memory limited to 6 GB by RLIMIT_DATA."""
    say("data: the whole batch within 6 GB")
    out, cache = _fresh(folder / "run"), _fresh(folder / "cache")
    config, limit = ROOT / "configs" / "v5.3-cpu.toml", 6_000_000_000
    begin = time.perf_counter()
    try:
        cost = measure("benchmarks.data_jobs:run_batch", data, config, out, cache, limit)
    except RuntimeError as error:
        return [Result("batch_peak_anonymous", float("inf"), "GB", 6, "lower", str(error).splitlines()[-1])]
    detail = f"configs/v5.3-cpu.toml under ulimit -d (RLIMIT_DATA) of 6 GB, {time.perf_counter() - begin:,.0f} s"
    return [Result("batch_peak_anonymous", cost.peak / GIGABYTE, "GB", 6, "lower", detail)]
