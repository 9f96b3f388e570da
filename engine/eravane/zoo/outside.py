"""Predictions from outside the run: members and floor of the pool, references for MMC and BMC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eravane.core.arrays import Float32s
from eravane.core.config import FirstGateConfig, RunConfig
from eravane.core.errors import ConfigError
from eravane.data.catalog import BENCHMARKS, LIVE_BENCHMARKS, META_COLUMN, META_MODEL
from eravane.data.parquet import column_of, value_columns
from eravane.data.store.store import EraStore
from eravane.learners.outside import OUTSIDE
from eravane.zoo.specs import ModelSpec

# A member's prediction of a row that it lacks, in an era of which it has no row.
NEUTRAL = np.float32(0.5)


@dataclass(frozen=True)
class Member:
    """Predictions from outside, in the store's order.

    Attributes:
        name: its name in the configuration.
        values_N: float32 [N] over all eras of the store; rows it lacks hold the median of its era, or .5.
        live_N: float32 [N] of the live rows, filled alike; None without live rows.
        eras: eras in which it has a prediction.
    """

    name: str
    values_N: Float32s = field(repr=False)
    live_N: Float32s | None = field(repr=False)
    eras: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True)
class Reference:
    """Predictions that others are measured against, in the store's order.

    Attributes:
        values_N: float32 [N] over all eras of the store, NaN where it has no row; live_N: it has no live rows.
    """

    values_N: Float32s = field(repr=False)
    live_N: None = None


def load_members(config: RunConfig, data: Path, store: EraStore) -> list[Member]:
    """Every member that [zoo] names: `members` (files of the user's own) and `benchmarks` (the dataset's columns).

    Raises:
        ConfigError: a file or column is not there, or holds nothing of the run's eras.
    """
    sources = {name: ([Path(path)], "") for name, path in config.zoo.members.items()}
    shipped = [data / name for name in (*BENCHMARKS, LIVE_BENCHMARKS)]
    sources |= {name: (shipped, name) for name in config.zoo.benchmarks}
    return [_member(name, paths, column, store) for name, (paths, column) in sources.items()]


def member_specs(members: Sequence[Member], target: str) -> list[ModelSpec]:
    """Members as base models: they have neither trees nor features."""
    return [ModelSpec(OUTSIDE, member.name, target, 0, ()) for member in members]


def load_references(config: RunConfig, data: Path, store: EraStore) -> dict[str, NDArray[np.float64]]:
    """The references that the criterion of selection needs: "mmc", "bmc" -> float64 [N], NaN where they have no row.

    With `aim = "payout"` both, as far as they are there: BMC stands in for MMC in eras without the meta model.

    Raises:
        ConfigError: the dataset lacks what the criterion needs.
    """
    criterion, found = config.selection.criterion, {}
    if config.aim == "payout":
        return _paid_references(config, data, store)
    if criterion in ("mmc", "payout"):
        found["mmc"] = _reference(data, [data / META_MODEL], META_COLUMN, store, f'selection.criterion "{criterion}"')
    if criterion == "bmc":
        name = config.selection.benchmark
        found["bmc"] = _reference(data, [data / file for file in BENCHMARKS], name, store, 'selection.criterion "bmc"')
    return found


def _paid_references(config: RunConfig, data: Path, store: EraStore) -> dict[str, NDArray[np.float64]]:
    """The meta model ("mmc") and the benchmark model ("bmc"), as far as they have rows of the run."""
    name = config.selection.benchmark or _first_benchmark(data)
    wanted = {"mmc": ([data / META_MODEL], META_COLUMN), "bmc": ([data / file for file in BENCHMARKS], name)}
    found = {kind: _aligned(paths, column, _ids(store)) for kind, (paths, column) in wanted.items() if column}
    known = {kind: values for kind, values in found.items() if values is not None and not np.isnan(values).all()}
    if not known:
        raise ConfigError(
            f'aim = "payout" needs {META_MODEL} or the benchmark models in {data} for the run\'s eras; get the files '
            'with `eravane fetch`, or use aim = "corr"'
        )
    return known


def references_read(config: RunConfig, data: Path, store: EraStore) -> dict[str, NDArray[np.float64]]:
    """Every reference that decides a run's results, by name: float64 [N], NaN where it has no row.

    Raises:
        ConfigError: the dataset lacks one.
    """
    found = load_references(config, data, store)
    if isinstance(config.gate, FirstGateConfig) and config.gate.objective == "payout":
        found["mmc"] = _reference(data, [data / META_MODEL], META_COLUMN, store, 'gate.objective "payout"')
    if config.zoo.residual:
        found["bmc"] = benchmark_values(config, data, store)
    names = {"mmc": META_MODEL, "bmc": f"the benchmark model {config.selection.benchmark or _first_benchmark(data)!r}"}
    return {names[kind]: values for kind, values in found.items()}


def benchmark_values(config: RunConfig, data: Path, store: EraStore) -> NDArray[np.float64]:
    """Predictions of `selection.benchmark`, or of the dataset's first benchmark model, float64 [N] with NaN.

    Raises:
        ConfigError: the dataset has none for the run's eras.
    """
    name = config.selection.benchmark or _first_benchmark(data)
    return _reference(data, [data / file for file in BENCHMARKS], name, store, "zoo.residual", "0")


def _first_benchmark(data: Path) -> str:
    """The first benchmark model of the dataset; empty where it has none."""
    for path in (data / file for file in reversed(BENCHMARKS)):
        if path.is_file():
            return next(iter(value_columns(path)), "")
    return ""


def _reference(
    data: Path, paths: Sequence[Path], column: str, store: EraStore, setting: str, instead: str = '"corr"'
) -> NDArray[np.float64]:
    values = _aligned(paths, column, _ids(store))
    if values is None or np.isnan(values).all():
        raise ConfigError(
            f"{setting} needs the column {column!r} of {' or '.join(p.name for p in paths)} in "
            f"{data} for the run's eras; get the files with `eravane fetch`, or use {instead}"
        )
    return values


def _member(name: str, paths: Sequence[Path], column: str, store: EraStore) -> Member:
    column = column or _only_column(name, paths[0])
    found = _aligned(paths, column, _ids(store))
    if found is None:
        files = ", ".join(str(path) for path in paths)
        raise ConfigError(f"member {name!r}: no file has a column {column!r}; looked in {files}")
    values_N, live = found.astype(np.float32), store.live()
    eras = tuple(_fill(values_N, store))
    if not eras:
        raise ConfigError(f"member {name!r} has no prediction for any row of the run; its ids are other ones")
    if all(_constant(values_N[store.index.rows_of(era)]) for era in store.index):
        raise ConfigError(f"member {name!r} is constant in every era; a constant ranks no rows")
    live_N = None
    if live is not None:
        known = _aligned(paths, column, live.ids)
        live_N = np.full(len(live.ids), NEUTRAL) if known is None else known.astype(np.float32)
        _fill_one(live_N)
    return Member(name, values_N, live_N, eras)


def _only_column(name: str, path: Path) -> str:
    if not path.exists():
        raise ConfigError(f"zoo.members.{name}: there is no file {path}")
    columns = list(value_columns(path))
    if name in columns or len(columns) == 1:
        return name if name in columns else columns[0]
    raise ConfigError(
        f"zoo.members.{name}: {path} has {len(columns)} prediction columns ({', '.join(columns[:5])}); name the member "
        "after one of them"
    )


def _ids(store: EraStore) -> pa.StringArray:
    return store.ids(store.index.first, store.index.last)


def _aligned(paths: Sequence[Path], column: str, ids: pa.StringArray) -> NDArray[np.float64] | None:
    """A column in the order of ids, float64 [N] with NaN where no file has the row; None where no file has it."""
    found = column_of(paths, column, ids)
    return None if found is None else found.astype(np.float64)


def _fill(values_N: Float32s, store: EraStore) -> Iterator[int]:
    """Fill missing rows in place; gives the eras that have a prediction."""
    for era in store.index:
        if _fill_one(values_N[store.index.rows_of(era)]):
            yield era


def _fill_one(values_n: Float32s) -> bool:
    missing = np.isnan(values_n)
    values_n[missing] = NEUTRAL if missing.all() else np.median(values_n[~missing])
    return not bool(missing.all())


def _constant(values_n: Float32s) -> bool:
    return bool(values_n.min() == values_n.max())


def coverage(members: Sequence[Member], store: EraStore, first: int) -> list[str]:
    """One line per member that lacks eras from `first` on, or live predictions."""
    wanted = [era for era in store.index if era >= first]
    notes = []
    for member in members:
        missing = len(set(wanted) - set(member.eras))
        if missing:
            notes.append(f"member {member.name} has no prediction in {missing} of {len(wanted)} eras from {first} on")
        if member.live_N is not None and _constant(member.live_N):
            notes.append(f"member {member.name} has no live predictions: its live rows are all equal")
    return notes


def paid_by(config: RunConfig, data: Path, store: EraStore) -> Reference | None:
    """The reference of contributions in a run that aims at payout; None elsewhere.

    The meta model in eras that have it; the benchmark model, BMC for MMC, in the eras before.

    Raises:
        ConfigError: the dataset lacks both.
    """
    if isinstance(config.gate, FirstGateConfig) and config.gate.objective == "payout":
        values_N = _reference(data, [data / META_MODEL], META_COLUMN, store, 'gate.objective "payout"')
        return Reference(values_N.astype(np.float32))
    if config.aim != "payout":
        return None
    known = _paid_references(config, data, store)
    values_N = known["mmc"].copy() if "mmc" in known else np.full_like(known["bmc"], np.nan)
    for era in store.index if "bmc" in known else ():
        rows = store.index.rows_of(era)
        if np.isnan(values_N[rows]).all():
            values_N[rows] = known["bmc"][rows]
    return Reference(values_N.astype(np.float32))
