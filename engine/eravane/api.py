"""The Python interface, which is all that the command line uses: one function per command, light to import."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eravane.core.config import RunConfig, load_config, parse_config, read_toml
from eravane.core.errors import ConfigError, DataError
from eravane.core.events import ByFile, Progress
from eravane.core.files import Place, default_cache

if TYPE_CHECKING:
    from eravane.data.store.store import EraStore
    from eravane.data.store.store import IngestReport as IngestReport
    from eravane.pipeline.export import Exported
    from eravane.pipeline.handle import Run
    from eravane.pipeline.week import WeekReport
    from eravane.planning.cost import CostPlan
    from eravane.planning.doctor import Check
    from eravane.report import Comparison
    from eravane.tournament.diagnose import diagnose as diagnose
    from eravane.tournament.fetch import fetch as fetch
    from eravane.tournament.overview import rules as rules
    from eravane.tournament.scores import LiveScore as LiveScore
    from eravane.tournament.scores import ScoreSheet as ScoreSheet
    from eravane.tournament.scores import scores as scores
    from eravane.tournament.submit import await_round as await_round
    from eravane.tournament.submit import submit as submit
    from eravane.tournament.upload import upload as upload

# Functions of the tournament, whose modules import pandas: they are loaded when they are first used.
_TOURNAMENT = {
    "await_round": "submit",
    "diagnose": "diagnose",
    "fetch": "fetch",
    "rules": "overview",
    "scores": "scores",
    "submit": "submit",
    "upload": "upload",
}
Configuration = RunConfig | Mapping[str, Any] | Place | None
"""A configuration, its tables as a mapping, the path of a TOML file, or None for all defaults."""


def __getattr__(name: str) -> Any:
    if name not in _TOURNAMENT:
        raise AttributeError(f"module 'eravane.api' has no attribute {name!r}")
    return getattr(importlib.import_module(f"eravane.tournament.{_TOURNAMENT[name]}"), name)


def run(
    config: Configuration = None,
    *,
    data: Place,
    out: Place,
    resume: bool = False,
    cache: Place | None = None,
    progress: Progress | None = None,
    rebuild_store: bool = False,
    adopt: bool = False,
    replay_of: Place | None = None,
) -> Run:
    """Run the whole batch, from a dataset to live predictions and a report.

    Args:
        config: a configuration, its tables as a mapping, the path of a TOML file, or None for all defaults (with
            `resume`: for the run's own).
        data: folder with Numerai's parquet files and features.json, or a store made by `eravane ingest`.
        out: run folder to make; with `resume` one that was interrupted.
        resume: continue an interrupted run; the outcome is the same as without the interruption.
        cache: folder of stores and finished boosters, shared by runs (None: $ERAVANE_CACHE, else ~/.cache/eravane).
        progress: shows the progress; None shows nothing.
        rebuild_store: delete the cached store of this data and ingest again; for data whose old eras changed.
        adopt: with `resume`, continue a run of an older release under the present rules.
        replay_of: a run that weekly steps brought up to date, which is repeated at once: with its configuration (where
            none is given), its periods and lags, each label known since when its steps knew it.

    Raises:
        ConfigError: the configuration is wrong or does not fit the data.
        DataError: the files break the dataset's contract.
        RunError: the run folder exists already, belongs to another run, or cannot be written.
        DeviceError: the device asked for does not work.
    """
    if adopt and not resume:
        raise ConfigError("a new run follows the present rules; --adopt is for --resume")
    if Path(data).is_file():
        raise DataError(f"{data} is a file; give the folder that holds it and features.json, or a store")
    replayed = None if replay_of is None else Path(replay_of)
    settings = as_config(config, Path(out) if resume else replayed, adopt=adopt)
    from eravane.data.catalog import FeatureCatalog

    FeatureCatalog.of_run(Path(data), settings.data)  # refused before the large libraries load
    from eravane.pipeline import batch
    from eravane.pipeline.handle import Run

    done = batch.run(
        Path(data),
        settings,
        Path(out),
        resume=resume,
        adopt=adopt,
        cache=None if cache is None else Path(cache),
        progress=progress,
        rebuild_store=rebuild_store,
        replay_of=replayed,
    )
    return Run(done.path)


def load(run: Place) -> Run:
    """Open a run folder, finished or not.

    Raises:
        RunError: the folder is no run.
    """
    from eravane.pipeline.handle import Run

    return Run(run)


def step(
    run: Place, *, data: Place, cache: Place | None = None, progress: Progress | None = None, adopt: bool = False
) -> WeekReport:
    """Bring a run up to date with the newest files and predict the live rows.

    Args:
        run: folder of a finished run.
        data: folder with the newest parquet files, or a store.
        cache: folder of finished boosters, shared by runs (None: as for `run`).
        progress: shows the progress; None shows nothing.
        adopt: continue under the present rules where the run's own no longer exist.

    Raises:
        RunError: the run is unfinished, its state belongs to another configuration, or its results would change.
        ConfigError: the run ends at a fixed era.
        DataError: the files break the dataset's contract.
        StoreError: another process steps this run, or the store cannot be written.
    """
    _require_run(run)
    from eravane.pipeline import week

    folder = default_cache() if cache is None else Path(cache)
    return week.step(Path(run), Path(data), cache=folder, progress=progress, adopt=adopt)


def plan(data: Place, config: Configuration = None, *, cores: int = 0, gpus: int = 1) -> CostPlan:
    """Predict the cost of a run: time, memory and disk by stage, and changes that would make it fit.

    Args:
        data: folder of a dataset, a store, or "v5.3" for the published shape of that version.
        config: the run's configuration; its device decides what is planned for.
        cores: of another machine (0: this one's).
        gpus: of the machine, where the device is a GPU.

    Raises:
        DataError: files are missing or break the dataset's contract.
        ConfigError: the configuration is wrong, or does not fit the data.
    """
    from eravane.planning.shape import read_shape

    settings = as_config(config)
    shape = read_shape(Path(data), settings)
    from eravane.planning.cost import plan_cost
    from eravane.planning.workload import this_machine

    return plan_cost(settings, shape, this_machine(settings.compute.device, cores, gpus))


def report(run: Place) -> Path:
    """Write `report.html` of a run again, also of an unfinished one; returns its path.

    Raises:
        RunError: the folder is no run.
    """
    return load(run).write_report()


def compare(first: Place, *others: Place) -> Comparison:
    """Paired per-era differences of other runs against the first, with errors that account for overlapping eras.

    Raises:
        RunError: a folder is no run, or no eras are shared.
    """
    return load(first).compare(*others)


def export(
    run: Place, out: Place, *, check: bool = False, python: str = sys.executable, pinned: bool = False
) -> Exported:
    """Write a run's newest state as a model file for hosted prediction.

    Args:
        run: folder of a finished run.
        out: file to write, ending in `.pkl`.
        check: load the file in a fresh interpreter without eravane and compare it with the run's live predictions.
        python: that interpreter.
        pinned: try it as well under pandas 2.3 and 3 with the oldest and the newest XGBoost that the tournament's
            images allow; pip builds these environments once, in the cache.

    Raises:
        RunError: the run is unfinished, or cannot be repeated by a hosted model; with `check`, the model fails.
    """
    _require_run(run)
    from eravane.pipeline import export as exporting

    if not pinned:
        return exporting.export(Path(run), Path(out), check=check, python=python)
    from eravane.pipeline.environments import ENVIRONMENTS

    return exporting.export(
        Path(run), Path(out), check=check, python=python, pinned=ENVIRONMENTS, cache=default_cache()
    )


def synth(out: Place, preset: str = "small", *, progress: Progress | None = None, **changes: Any) -> Path:
    """Write a dataset with Numerai's file names, columns and types, and a planted signal; returns the folder.

    Args:
        out: folder to make.
        preset: "tiny", "small" or "v5.3".
        progress: shows the progress; None shows nothing.
        changes: keys of `eravane.synth.SynthConfig` that differ from the preset.

    Raises:
        ConfigError: there is no such preset, or a value is wrong.
    """
    from eravane.synth import PRESETS, synthesise

    if preset not in PRESETS:
        raise ConfigError(f"--preset is one of {', '.join(PRESETS)}, given {preset!r}")
    config = dataclasses.replace(PRESETS[preset], **changes)
    if progress is None:
        return synthesise(Path(out), config)
    progress.start("synth", config.eras + 1)  # the live era comes last
    return synthesise(Path(out), config, lambda done, total: progress.advance(f"era {done}"))


def demo_config(preset: str = "small", seed: int = 0) -> RunConfig:
    """The configuration that `eravane demo` runs on made data of a preset."""
    from eravane.pipeline import demo

    return dataclasses.replace(demo.demo_config(preset), seed=seed)


def ingest(
    data: Place,
    store: Place,
    *,
    features: str = "all",
    first_era: int | None = None,
    last_era: int | None = None,
    every: int = 1,
    device: str = "cpu",
    note: Callable[[str], None] = lambda _: None,
    progress: ByFile | None = None,
) -> EraStore:
    """Stream parquet files into a store of columns x rows; an existing store gets what is new.

    Args:
        data: folder with train, validation and live parquet and features.json.
        store: store to make, or to bring up to date.
        features: feature set to take.
        first_era, last_era: both inclusive; None for no bound.
        every: take every n-th era.
        device: what decodes, checks and sorts the files: "cpu", "cuda" or "auto".
        note: called with what the choice of the device rests on.
        progress: called with a file's name, cells done and cells in all.

    Raises:
        DataError: the files break the dataset's contract.
        StoreError: the store is another one, or cannot be written.
        DeviceError: the device asked for does not work.
    """
    from eravane.backend import choose
    from eravane.data.catalog import FEATURES_JSON, FeatureCatalog
    from eravane.data.ingest import ingest as fill

    decode = choose(device, note).decoder() if device != "cpu" else None  # type: ignore[arg-type]
    columns = FeatureCatalog.load(Path(data) / FEATURES_JSON, sets=[features]).columns
    return fill(
        Path(data),
        Path(store),
        columns=list(columns),
        first_era=first_era,
        last_era=last_era,
        every=every,
        progress=progress,
        decode=decode,
    )


def doctor(scheduler: str = "", data: Place | None = None) -> list[Check]:
    """Check this machine, with advice on each problem.

    Args:
        scheduler: address of a Dask scheduler to try; "" for none.
        data: dataset folder or store whose targets are examined, too.

    Raises:
        DataError, StoreError: the data cannot be read.
    """
    from eravane.planning import doctor as examining

    return examining.doctor(scheduler, None if data is None else Path(data))


def as_text(checks: Sequence[Check]) -> str:
    """The checks of `doctor` for people, a line each, with a summary."""
    from eravane.planning import doctor as examining

    return examining.as_text(checks)


def as_config(config: Configuration, resumed: Path | None = None, *, adopt: bool = False) -> RunConfig:
    """A configuration from any form that `run` accepts.

    Args:
        config: a configuration, its tables, a TOML file, or None for all defaults.
        resumed: a run folder that is continued: its edition decides what keys that are left out mean, and None is its
            own configuration.
        adopt: the run goes on under the present rules.

    Raises:
        ConfigError: a key or value is wrong, or the file cannot be read.
        RunError: it is not a run folder, or is damaged.
    """
    if isinstance(config, RunConfig):
        return config
    if resumed is None:
        tables: Mapping[str, Any] = {} if config is None else config if isinstance(config, Mapping) else {}
        return load_config(Path(config)) if isinstance(config, str | PathLike) else parse_config(dict(tables))
    from eravane.runstate.runfolder import RunFolder

    folder = RunFolder.open(resumed)
    begun = folder.config(adopt=adopt)
    if config is None:
        return begun
    return folder.read_as_begun(config if isinstance(config, Mapping) else read_toml(Path(config)), adopt=adopt)


def _require_run(run: Place) -> None:
    """Refuse what is no run folder, before the large libraries load."""
    from eravane.runstate.runfolder import RunFolder

    RunFolder.open(Path(run))
