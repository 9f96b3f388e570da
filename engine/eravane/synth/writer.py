"""Writes the files of a made dataset with Numerai's names and types."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from eravane.calendar.horizon import Horizon
from eravane.core.errors import DataError
from eravane.data.catalog import META_COLUMN, META_MODEL
from eravane.synth.config import SynthConfig
from eravane.synth.world import MadeEra, World

TRUTH = "truth.parquet"
_MAX_GROUP_ROWS = 1_048_576
BENCHMARKS = ("v53_lgbm_ender20", "v53_lgbm_ender60")
# How much of its variance each outside prediction shares with the equally weighted group signals.
_QUALITY = {BENCHMARKS[0]: 0.25, BENCHMARKS[1]: 0.3, META_COLUMN: 0.5}


def synthesise(out_dir: Path | str, config: SynthConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Write features.json, train/validation/live.parquet and truth.parquet of a made dataset.

    With `benchmark_from` and `meta_eras` also the benchmark models' and the meta model's predictions.

    The folder appears complete or not at all. Memory: `config.row_group_eras` eras and the stocks' latent state,
    independent of the number of eras, and the outside predictions. `progress(done, total)` is called after each era.

    Returns:
        The folder written.

    Raises:
        DataError: `out_dir` exists already, or `features_json` cannot be read.
        OSError: the disk is full or the folder cannot be written.
    """
    out = Path(out_dir)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"synth: {out} exists and is not an empty folder; choose another name or remove it")
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        _write_all(part, World(config), progress)
        if out.exists():
            out.rmdir()
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return out


def _write_all(folder: Path, world: World, progress: Callable[[int, int], None] | None) -> None:
    """Write every era to its file in one pass."""
    config = world.config
    document = json.dumps(world.layout.document(), indent=2)
    (folder / "features.json").write_text(document + "\n", encoding="utf-8")
    n_train = max(1, round(config.train_share * config.eras))
    limits = {"train": n_train, "validation": config.eras, "live": config.eras + 1}
    truth, outside = _Truth(world.layout.groups), _Outside(config)
    made_eras = world.eras()
    done = 0
    for name, last in limits.items():
        with _EraWriter(folder / f"{name}.parquet", world) as writer:
            for made in itertools.islice(made_eras, last - done):
                batch = _era_batch(made, world, writer.schema)
                writer.add(batch)
                outside.add(name, made, batch)
                truth.add(made)
                done = made.era
                if progress is not None:
                    progress(done, config.eras + 1)
    pq.write_table(truth.table(config.eras), folder / TRUTH)
    outside.write(folder)


class _Truth:
    """The planted truth, one row per era: regime and the main target's group weights."""

    def __init__(self, groups: tuple[str, ...]) -> None:
        self._groups = groups
        self._regime: list[int] = []
        self._weights_EKG: list[NDArray[np.float64]] = []

    def add(self, made: MadeEra) -> None:
        """Add an era's regime and its expected and realised weights."""
        self._regime.append(made.regime)
        self._weights_EKG.append(np.stack([made.expected_G, made.realised_20_G, made.realised_60_G]))

    def table(self, eras: int) -> pa.Table:
        """Return the historical eras: era, regime, expected_, realised_20_ and realised_60_<group>."""
        weights_KGE = np.moveaxis(np.stack(self._weights_EKG[:eras]), 0, -1)
        columns: dict[str, object] = {
            "era": [f"{era:04d}" for era in range(1, eras + 1)],
            "regime": np.array(self._regime[:eras], dtype=np.int64),
        }
        for kind, weights_GE in zip(("expected", "realised_20", "realised_60"), weights_KGE, strict=True):
            columns |= {f"{kind}_{group}": w_E for group, w_E in zip(self._groups, weights_GE, strict=True)}
        return pa.table(columns)


class _Outside:
    """Predictions of the benchmark models and of the meta model: noisy looks at the groups' signals, no labels in them.

    They are kept in memory until all eras are made: about 30 bytes a row.
    """

    def __init__(self, config: SynthConfig) -> None:
        self._config = config
        self._frames: dict[str, list[pd.DataFrame]] = {}

    def add(self, part: str, made: MadeEra, batch: pa.RecordBatch) -> None:
        """Predict the rows of an era of train, validation or live."""
        config, names = self._config, dict[str, tuple[str, ...]]()
        if config.benchmark_from and made.era >= config.benchmark_from:
            names[f"{part}_benchmark_models.parquet"] = BENCHMARKS
        if config.eras - config.meta_eras < made.era <= config.eras:
            names[META_MODEL] = (META_COLUMN,)
        for file, columns in names.items():
            frame = batch.select(["id", "era", "data_type"]).to_pandas(ignore_metadata=True).set_index("id")
            for column in columns:
                frame[column] = self._predictions(made, column)
            if file != META_MODEL:
                frame = frame.drop(columns="data_type")
            self._frames.setdefault(file, []).append(frame)

    def write(self, folder: Path) -> None:
        """Write a file for each part that has rows."""
        for file, frames in self._frames.items():
            pd.concat(frames).to_parquet(folder / file)

    def _predictions(self, made: MadeEra, column: str) -> NDArray[np.float64]:
        """Percentile ranks within the era."""
        rng = np.random.default_rng([self._config.seed, 7, made.era, list(_QUALITY).index(column)])
        signal_N = made.signals_GN.mean(axis=0, dtype=np.float64)
        spread = signal_N.std()
        share = _QUALITY[column] if spread > 0 else 0.0
        mixed_N = np.sqrt(share) * signal_N / (spread or 1.0) + np.sqrt(1 - share) * rng.standard_normal(signal_N.size)
        return np.asarray((np.argsort(np.argsort(mixed_N, kind="stable")) + 0.5) / signal_N.size)


class _EraWriter:
    """A parquet file that takes whole eras and writes them in row groups of several."""

    def __init__(self, path: Path, world: World) -> None:
        self._world = world
        self.schema = _schema(world)
        self._writer = pq.ParquetWriter(path, self.schema)
        self._waiting: list[pa.RecordBatch] = []

    def __enter__(self) -> _EraWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self._writer.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Append one era; it reaches the disk when its row group is full."""
        self._waiting.append(batch)
        if len(self._waiting) == self._world.config.row_group_eras:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            table = pa.Table.from_batches(self._waiting, self.schema)
            self._waiting = []
            self._writer.write_table(table, row_group_size=_MAX_GROUP_ROWS)


def _schema(world: World) -> pa.Schema:
    """Return the columns as pandas writes Numerai's frames: era, data_type, features, targets, index id."""
    dtype: type = np.float32 if world.config.regimes == "marginal" else np.int8
    names = ["era", "data_type", *world.layout.features, "target", *world.layout.targets]
    dtypes: dict[str, type] = dict.fromkeys(names, np.float32)
    dtypes |= dict.fromkeys(world.layout.features, dtype) | dict.fromkeys(names[:2], object)
    frame = pd.DataFrame({name: pd.Series([], dtype=dtypes[name]) for name in names})
    frame.index = pd.Index([], name="id", dtype=object)
    inferred = pa.Schema.from_pandas(frame)
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in inferred]
    return pa.schema(fields, metadata=inferred.metadata)


def _era_batch(made: MadeEra, world: World, schema: pa.Schema) -> pa.RecordBatch:
    """Return one era as Arrow columns, with the targets that are not known yet as nulls."""
    n = made.features_FN.shape[1]
    eras = world.config.eras
    live = made.era > eras
    targets = [
        pa.nulls(n, pa.float32()) if made.era > eras - Horizon.required(name).empty_eras else pa.array(y_N)
        for name, y_N in zip(world.layout.targets, made.targets_TN, strict=True)
    ]
    main = targets[world.layout.main]
    if live:
        kind = "live"
    elif made.era <= max(1, round(world.config.train_share * eras)):
        kind = "train"
    else:
        kind = "test" if main.null_count else "validation"
    era = pa.repeat(pa.scalar("X" if live else f"{made.era:04d}"), n)
    columns = [era, pa.repeat(pa.scalar(kind), n), *(pa.array(x_N) for x_N in made.features_FN)]
    return pa.record_batch([*columns, main, *targets, _ids(world.config.seed, made.era, n)], schema=schema)


def _ids(seed: int, era: int, n: int) -> pa.StringArray:
    """Return n ids, `n` and 15 hexadecimal digits: a bijection of (era, row), so no two are equal."""
    mask = np.uint64((1 << 60) - 1)
    x_N = (np.uint64(era) << np.uint64(32)) | np.arange(n, dtype=np.uint64)
    x_N ^= np.uint64(np.random.default_rng([seed, 6]).integers(1 << 60))
    for factor in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9):
        # Odd factors and right shifts are invertible modulo 2^60.
        x_N = (x_N * np.uint64(factor)) & mask
        x_N ^= x_N >> np.uint64(29)
    nibbles_ND = (x_N[:, None] >> np.arange(56, -4, -4, dtype=np.uint64)) & np.uint64(15)
    text_ND = np.empty((n, 16), dtype=np.uint8)
    text_ND[:, 0] = ord("n")
    text_ND[:, 1:] = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[nibbles_ND]
    offsets_N: NDArray[np.int32] = np.arange(n + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(n, pa.py_buffer(offsets_N), pa.py_buffer(text_ND.tobytes()))
