"""The configuration of a run: frozen, typed, read from TOML; unknown keys are errors that suggest the nearest name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from eravane.core.editions import EDITION, FIRST_EDITION
from eravane.core.errors import ConfigError
from eravane.core.settings import MOST_SEED, Builder, Reading, left_out, setting


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Eras, features and target of the run."""

    target: str = setting("target", "Target column on which the ensemble is scored.")
    horizon_eras: int = setting(
        0,
        "Eras a label spans, for targets whose name (_20, _60) does not give it (0: from the data, by the target "
        "column that it equals, else by its newest, empty eras).",
        least=0,
    )
    first_era: int = setting(0, "Oldest era to use (0: all).", least=0)
    last_era: int = setting(0, "Newest era to use (0: all).", least=0)
    feature_sets: tuple[str, ...] = setting(("small", "medium", "all"), "Feature sets; large means all.")
    feature_groups: tuple[str, ...] = setting((), "Feature groups (empty: every group in features.json).")
    leave_one_group_out: bool = setting(False, "Add, per set and group, a cell of the set without the group.")


@dataclass(frozen=True, kw_only=True)
class TimeConfig:
    """Lags of labels, and eras that the loop covers."""

    score_lag: int | None = setting(
        None, "Lag of scores and weights, eras (unset: 6 for 20-day targets, 14 for 60-day).", least=0
    )
    tree_lag: int | None = setting(
        None, "Lag of anything that fits trees, eras (unset: 9 for 20-day targets, 17 for 60-day).", least=0
    )
    observed_lag: bool = setting(True, "Use the lag seen in the data file where it is longer than the rule.")
    loop_start: int = setting(0, "First era of the loop (0: so that it covers `loop_eras`).", least=0)
    loop_eras: int = setting(100, "Labelled eras that the loop covers, where loop_start is 0.", least=1)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Missing values and outliers."""

    missing_eras: Literal["report", "impute"] = setting(
        "report", "A feature that is 2 in a whole era: report it, or take it as missing and impute it."
    )
    impute: Literal["none", "mean", "median", "mode", "constant", "knn"] = setting(
        "median", "How missing values are filled."
    )
    constant: float = setting(2.0, 'Value for impute = "constant", and where an era has no value at all.')
    indicators: bool = setting(False, "Append a column per feature that marks where it was missing.")
    outliers: Literal["auto", "none", "winsorize", "std", "mad"] = setting(
        "auto",
        "Clip at quantiles, at mean +- k std, or at median +- k MAD; auto winsorizes floats and keeps levels.",
    )
    k: float = setting(5.0, "Width of the bounds for std and mad.", least=0)
    bounds: Literal["era", "window"] = setting("era", "Bounds and fills from the era itself, or from a window.")
    window: int = setting(12, "Earlier eras that a window covers beside the era itself.", least=1)


@dataclass(frozen=True, kw_only=True)
class ZooConfig:
    """The base models: one per feature set, feature group, target and seed."""

    targets: tuple[str, ...] = setting((), "Targets to train on (empty: the target of [data]).")
    seeds: int = setting(1, "Models per cell and target that differ in the seed alone.", least=1, most=1_000)
    learner: Literal["auto", "levels", "xgboost", "lightgbm"] = setting(
        "auto",
        "Learner of the trees; auto takes the level grower where it can grow them, else XGBoost.",
        earlier={1: "xgboost"},
    )
    trees: int = setting(200, "Trees per model.", least=1)
    params: dict[str, Any] = setting(
        {}, "XGBoost parameters on top of the defaults (max_depth 5, eta 0.05, colsample_bytree 0.1)."
    )
    fold_eras: int = setting(156, "Eras predicted per walk-forward fold.", least=1)
    folds: int = setting(4, "How many of the newest folds to train (0: all).", least=0)
    window: int = setting(0, "Newest eras to train on (0: all, an expanding window).", least=0)
    minimum_eras: int = setting(20, "Fewest labelled eras a fold may train on.", least=1)
    every: int = setting(1, "Train on every n-th era.", least=1)
    half_life: float = setting(0.0, "Half-life of era weights, in eras (0: equal weights).", least=0)
    members: dict[str, Any] = setting(
        {}, "Members from outside: name = a parquet with id and predictions, of the history and of the live rows."
    )
    benchmarks: tuple[str, ...] = setting((), "Columns of the dataset's benchmark predictions that join as members.")
    residual: float = setting(
        0.0,
        "Also train every model on its targets less this share of the benchmark model, era by era (0: none).",
        least=0,
        most=1,
    )


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Selection of the base models that enter the ensemble."""

    criterion: Literal["corr", "mmc", "bmc", "payout"] = setting(
        "corr", "Models are ranked by mean CORR, MMC, BMC, or the payout mix of CORR and MMC; Sharpe breaks ties."
    )
    benchmark: str = setting("", "Column of the dataset's benchmark predictions that BMC is measured against.")
    corr_multiplier: float | None = setting(
        None,
        "Weight of CORR in the payout mix (unset: the payout rule in force, `eravane rules` prints it).",
        least=0,
        earlier={1: 0.75},
    )
    mmc_multiplier: float | None = setting(
        None, "Weight of MMC in the payout mix (unset: the payout rule in force).", least=0, earlier={1: 2.25}
    )
    per_cell: int = setting(2, "At most this many models per feature set and group.", least=1, most=1_000)
    most: int = setting(24, "At most this many models in all.", least=1, most=1_000)
    minimum_corr: float = setting(0.0, "Models whose mean CORR is not above this are dropped.")
    duplicate: float = setting(
        0.98, "A model that correlates above this with a better one is dropped.", least=0, most=1
    )
    floor: float = setting(
        0.0, "Models below this share of the best outside member's mean CORR are dropped (0: no floor).", least=0
    )
    least: int = setting(2, "Keep at least this many of the best models, regardless of their score.", least=1)


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """The meta-learner, which decides per era which base models run and with what weight."""

    warmup: int = setting(30, "Resolved eras at equal weight before the gate decides.", least=1)
    inputs: tuple[Literal["scores", "structure", "marginals", "agreement"], ...] = setting(
        ("scores", "structure", "marginals", "agreement"),
        "Inputs of the network: lagged scores, correlation structure, feature marginals, agreement of predictions.",
    )
    reward: Literal["gain", "dynamos"] = setting(
        "gain", "Standardised gain over equal weight less the keep-ratio penalty, or the literal losses of Dynamos."
    )
    max_active: int = setting(0, "At most this many open gates per era (0: no cap).", least=0)
    seeds: int = setting(10, "Networks whose gates and weights are averaged.", least=1, most=1_000)
    steps: int = setting(80, "Gradient steps of a full refit.", least=1)
    refit_every: int = setting(52, "Resolved eras between full refits of the network and its normalisers.", least=1)
    rehearsal: int = setting(
        104,
        "Newest eras of the folds' history on which the top level tries its experts before the loop starts.",
        least=0,
    )
    experts: tuple[Literal["screened", "best_single", "ridges", "regimes", "network"], ...] = setting(
        ("screened", "best_single", "ridges", "regimes", "network"),
        "Experts beside equal weight: equal weight of the models that are not worse than the pool, the best model of "
        "the past, ridges on lagged scores with several half-lives, hidden Markov regimes, the network.",
    )
    facts: str = setting(
        "", "Parquet file of facts per era (a column era, numbers in the others) that the gate reads (empty: none)."
    )
    facts_lag: int = setting(1, "Eras until a row of gate.facts is published: era t reads that of t - lag.", least=0)

    @property
    def networked(self) -> bool:
        """Whether the network is one of the experts."""
        return "network" in self.experts


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Updates of base models during the loop."""

    update: Literal["none", "refit", "append", "leaves", "refit+leaves"] = setting(
        "refit+leaves",
        "Base models: never updated, refitted, grown by trees on cached margins, their leaf values re-estimated on new "
        "eras, or refitted with their leaves re-estimated in between (XGBoost's; other learners are refitted alone).",
    )
    every: int = setting(26, "Eras between refits, or between appended blocks.", least=1)
    half_life: float = setting(
        80.0, "Half-life of era weights in refits and appended trees, in eras (0: equal weights).", least=0
    )
    append_trees: int = setting(10, "Trees that an update appends.", least=1)
    leaves_every: int = setting(5, "Eras between re-estimations of leaf values.", least=1)


@dataclass(frozen=True, kw_only=True)
class FirstGateConfig(GateConfig):
    """[gate] of edition 1: its experts, and what has become constants since."""

    experts: tuple[Literal["ridge", "change_points"], ...] = setting(  # type: ignore[assignment]
        ("ridge", "change_points"), "Experts beside equal weight and the network: ridges on two forecasts."
    )
    objective: Literal["corr", "payout"] = setting("corr", "CORR, or .75 CORR + 2.25 MMC.")
    half_lives: tuple[float, ...] = setting((4.0, 16.0, 64.0), "Half-lives of the lagged scores, in resolved eras.")
    ridge_half_life: float = setting(16.0, "Half-life of the lagged-EMA ridge, in resolved eras.", least=1)
    change_every: float = setting(52.0, "Eras between two changes, as change_points expects them.", least=2)
    ridge: float = setting(1.0, "Ridge of the experts, in units of the predictions' variance.", least=0)
    rest_after: int = setting(4, "A model closed for this many eras in a row skips its tree updates.", least=1)
    keep_ratio: float = setting(0.7, "Share of open gates that the penalty aims at.", least=0, most=1)
    keep_penalty: float = setting(1.0, "Weight of the squared distance to keep_ratio.", least=0)
    amplify: float = setting(2.0, "Factor on the penalty in eras that lose against equal weight.", least=1)
    prototype_weight: float = setting(0.1, "Weight of the prototype loss (0: none).", least=0)
    prototype_margin: float = setting(4.0, "Distance of gate logits beyond which unlike eras repel no more.", least=0)
    prototypes: int = setting(4, "Regimes that resolved eras are clustered into.", least=1)
    hidden: int = setting(8, "Hidden units of the shared scorer.", least=1, most=10_000)
    noise: float = setting(1.0, "Noise on the network's inputs in training.", least=0)
    rate: float = setting(0.02, "Learning rate of a full refit; warm starts take a quarter.", least=0)
    decay: float = setting(0.01, "Decay of the scorer's parameters per step.", least=0)
    warm_steps: int = setting(2, "Gradient steps per era between full refits.", least=0)
    replay: int = setting(128, "Resolved eras drawn for each step of a refit, and for each warm start.", least=2)

    @property
    def networked(self) -> bool:
        """Always so."""
        return True


@dataclass(frozen=True, kw_only=True)
class FirstLoopConfig(LoopConfig):
    """[loop] of edition 1: what has become constants since."""

    append_window: int = setting(40, "Newest eras that appended trees are grown on.", least=1)
    blocks: int = setting(20, "Appended blocks kept before the oldest is dropped.", least=1)
    leaves_half_life: float = setting(24.0, "Eras after which half of a leaf's value comes from newer eras.", least=1)


@dataclass(frozen=True, kw_only=True)
class PostprocessConfig:
    """Postprocessing of the ensemble."""

    neutralize: str = setting("", "Feature set that the ensemble is neutralised to (empty: none).")
    proportion: float = setting(0.5, "Share of what those features explain that is taken out.", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Device, workers and memory of the run."""

    device: Literal["auto", "cpu", "cuda"] = setting("auto", "auto takes a working GPU, else the CPU.")
    workers: int = setting(
        0, "Models trained at the same time on this machine (0: one per core).", least=0, most=10_000
    )
    scheduler: str = setting(
        "",
        "Address of a running Dask scheduler; local starts a cluster of this machine, a worker per core or per GPU; "
        "empty trains in threads.",
    )
    booster_spans: Literal["auto", "worker", "cluster"] = setting(
        "auto",
        "With Dask: a booster trains on one worker, or on all by rows (xgboost.dask); auto spreads matrices that are "
        "larger than a worker.",
    )
    pool: Literal["async", "pool", "none"] = setting(
        "async",
        "GPU memory that CuPy and cuDF share: the driver's asynchronous pool, a growing pool of RMM's own, or none.",
    )
    memory: str = setting("16GB", "Memory the run may hold; a plan that exceeds it is refused.")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a run: what decides its result, and where it is computed."""

    edition: int = setting(
        EDITION,
        "Edition of eravane's rules and defaults that the run follows; 1 is that of release 0.1.0.",
        least=FIRST_EDITION,
        most=EDITION,
    )
    seed: int = setting(0, "Seed from which every random number of the run is derived.", least=0, most=MOST_SEED)
    aim: Literal["corr", "payout"] = setting(
        "corr",
        "Goal of selection, gate and report: CORR, or the payout (CORR and MMC; where MMC is unknown, BMC).",
    )
    data: DataConfig = field(default_factory=DataConfig)
    time: TimeConfig = field(default_factory=TimeConfig)
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    zoo: ZooConfig = field(default_factory=ZooConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    gate: GateConfig = field(default_factory=GateConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def ranking(self) -> SelectionConfig:
        """[selection] under the run's aim: a run that aims at payout ranks models by it."""
        going = self.aim == "payout" and self.selection.criterion == "corr"
        return dataclasses.replace(self.selection, criterion="payout") if going else self.selection

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets that base models are trained on, each once."""
        return tuple(dict.fromkeys(self.zoo.targets)) or (self.data.target,)

    @property
    def labels(self) -> int:
        """How many labels a cell's models are trained on: the targets, and their residuals beside them."""
        return len(self.targets) * (2 if self.zoo.residual else 1)

    def digest(self) -> str:
        """Twelve hex digits over what decides results: keys that differ from what leaving them out meant at first.

        A key that later releases add does not enter while it has the meaning that runs had without it; where a run is
        computed ([compute]) never does.
        """
        content = unlike_first(self)
        return digest_of({key: value for key, value in content.items() if not key.startswith("compute.")})


def unlike_first(config: Any, prefix: str = "") -> dict[str, object]:
    """Keys that differ from what leaving them out meant in the first edition, by dotted name."""
    found: dict[str, object] = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            found |= unlike_first(value, f"{prefix}{item.name}.")
        elif value != (FIRST_EDITION if item.name == "edition" else left_out(item, FIRST_EDITION)):
            found[prefix + item.name] = value
    return found


def digest_of(content: object) -> str:
    """Twelve hex digits over a JSON-able value."""
    text = json.dumps(content, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_config(path: Path) -> RunConfig:
    """Read a TOML configuration.

    Raises:
        ConfigError: the file is missing, is no TOML, has an unknown key (the nearest name is suggested), or a value
            of the wrong type or outside its bounds.
    """
    return parse_config(read_toml(path), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
        ConfigError: the file is missing, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration {path}; ready ones are in configs/") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as a configuration: {error.strerror}; give a TOML file") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits is a ValueError
        raise ConfigError(f"{path} is not TOML: {error}") from None


def parse_config(content: dict[str, Any], source: str = "configuration", edition: int | None = None) -> RunConfig:
    """Build a configuration from nested tables, as TOML gives them.

    Args:
        content: the tables.
        source: what errors call them.
        edition: the edition of tables that name none (None: the present one).

    Raises:
        ConfigError: a key is unknown or no more (the message names its replacement), or a value is wrong.
    """
    reading = translate_config(content, source, edition)
    if reading.lost:
        raise ConfigError(f"{source}: {reading.lost[0]}")
    for note in reading.notes:
        logging.getLogger("eravane").warning("%s: %s", source, note)
    return reading.config


# Sections as they were in an edition, with keys that are no more and rules that runs of that edition keep.
SECTIONS_OF: dict[int, dict[type, type]] = {1: {GateConfig: FirstGateConfig, LoopConfig: FirstLoopConfig}}


def translate_config(
    content: dict[str, Any], source: str, edition: int | None = None, *, adopt: bool = False
) -> Reading[RunConfig]:
    """Build a configuration from tables that may have keys of older releases.

    Args:
        content: the tables; source: what errors call them.
        edition: the edition of tables that name none (None: the present one).
        adopt: read old keys by the present rules, which have no place for some of them.

    Raises:
        ConfigError: a key is unknown, or a value is wrong.
    """
    edition = content.get("edition", EDITION if edition is None else edition)
    if isinstance(edition, int) and edition > EDITION:
        raise ConfigError(
            f"{source} is of edition {edition}, written by a newer eravane; this one knows editions up to {EDITION}: "
            "upgrade it"
        )
    known = edition if isinstance(edition, int) else EDITION
    builder = Builder(source, known, {} if adopt else SECTIONS_OF.get(known, {}))
    return builder.read(RunConfig, {**content, "edition": edition})


def to_toml(config: RunConfig) -> str:
    """Write a configuration as TOML with every key that is set, so that reading it back gives an equal one.

    Raises:
        ConfigError: a value that was set in Python has no place in TOML, or is not what its key allows.
    """
    tables = dataclasses.asdict(config)
    for section in tables.values():
        if isinstance(section, dict):
            for key in [key for key, value in section.items() if value is None]:
                del section[key]
    try:
        text = tomli_w.dumps(tables)
        read = parse_config(tomllib.loads(text), "configuration")
    except (TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the configuration cannot be written as TOML: {error}") from error
    if (read.digest(), read.compute) != (config.digest(), config.compute):
        raise ConfigError("the configuration does not survive being written as TOML; build it with parse_config")
    return text
