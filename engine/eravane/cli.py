"""The command line."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from eravane import __version__
from eravane.config import RunConfig, load_config
from eravane.console import ConsoleProgress, gain_sentence, metrics_table
from eravane.errors import ConfigError, EravaneError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="GPU-accelerated batch engine for the Numerai tournament: train a zoo of boosted trees, gate it era by era, "
    "submit.",
)
console = Console()
errors = Console(stderr=True)

USAGE, FAILURE, INTERRUPTED = 2, 1, 130

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML configuration; without it every key has its default.")
]
Device = Annotated[
    str, typer.Option(help="auto (a working GPU, else the CPU), cpu or cuda; empty: as the configuration says.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of stores and finished boosters [default: $ERAVANE_CACHE or ~/.cache/eravane]."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point: run a command; one readable message and an exit code for every error."""
    # Spinning OpenMP threads lose a factor of three beside another busy process; read when the libraries load.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGTERM, _interrupt)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=False)
    except KeyboardInterrupt:
        errors.print("interrupted; what is finished is kept, go on with --resume", highlight=False)
        sys.exit(INTERRUPTED)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except EravaneError as error:
        if debug:
            raise
        errors.print(f"error: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILURE)


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        console.print(__version__, highlight=False)
        raise typer.Exit


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the made data, the cache and the run.")] = Path("demo"),
    preset: Annotated[str, typer.Option(help="Size of the made data: tiny or small.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of data and run.")] = 0,
    device: Device = "",
) -> None:
    """Make a Numerai-shaped dataset, run the whole batch on it, and show the result."""
    from eravane.demo import demo_config

    data = out / "data"
    if not (data / "features.json").is_file():
        synth(data, preset=preset, seed=seed)
    config = _with_compute(dataclasses.replace(demo_config(preset), seed=seed), device)
    _run(data, config, out / "run", resume=(out / "run").exists(), cache=out / "cache")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    preset: Annotated[str, typer.Option(help="tiny, small or v5.3.")] = "small",
    eras: Annotated[int, typer.Option(help="Historical eras (0: as the preset says).", min=0)] = 0,
    rows: Annotated[int, typer.Option(help="Mean rows per era (0: as the preset says).", min=0)] = 0,
    regimes: Annotated[str, typer.Option(help="Where regimes show: structure, marginal or hidden.")] = "structure",
    null: Annotated[bool, typer.Option("--null", help="No regimes: every group keeps its weight.")] = False,
    features_json: Annotated[
        Path | None, typer.Option(help="A Numerai features.json whose names, sets and groups are used.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
) -> None:
    """Write a dataset with Numerai's file names, columns and types, and a planted signal."""
    from eravane.synth import PRESETS, synthesise

    if preset not in PRESETS:
        raise ConfigError(f"--preset is one of {', '.join(PRESETS)}, given {preset!r}")
    changes: dict[str, Any] = {"seed": seed, "regimes": regimes, "null": null, "features_json": features_json}
    changes |= {name: value for name, value in (("eras", eras), ("rows", rows)) if value}
    config = dataclasses.replace(PRESETS[preset], **changes)
    with _progress() as progress:
        progress.start("synth", config.eras)
        synthesise(out, config, lambda done, total: progress.advance(f"era {done}"))
    console.print(f"made data in {out}", highlight=False)


@app.command()
def ingest(
    data: Annotated[Path, typer.Argument(help="Folder with train, validation and live parquet and features.json.")],
    store: Annotated[Path, typer.Argument(help="Store to make, or to bring up to date.")],
    features: Annotated[str, typer.Option(help="Feature set to take (small, medium, all).")] = "all",
    eras: Annotated[str, typer.Option(help="FROM:TO, both inclusive; either may be left out.")] = "",
    every: Annotated[int, typer.Option(help="Take every n-th era.", min=1)] = 1,
) -> None:
    """Stream parquet files into a store of columns x rows; with a store that exists, add what is new."""
    from eravane.catalog import FeatureCatalog
    from eravane.ingest import FEATURES_JSON
    from eravane.ingest import ingest as fill

    columns = FeatureCatalog.load(data / FEATURES_JSON, sets=[features]).columns
    first, last = _era_range(eras)
    with _progress() as progress:
        progress.start("ingest", 1)
        made = fill(data, store, columns=list(columns), first_era=first, last_era=last, every=every)
        progress.advance()
    console.print(
        f"store {store}: {made.index.rows:,} rows, {len(made.index)} eras, {len(made.columns)} features",
        highlight=False,
    )


@app.command()
def run(
    data: Annotated[Path, typer.Argument(help="Folder with Numerai's files, or a store made by `eravane ingest`.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    config: Config = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")] = False,
    device: Device = "",
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    workers: Annotated[int, typer.Option(help="Models trained at once (0: as configured).", min=0)] = 0,
    cache: Cache = None,
) -> None:
    """Do the whole job: ingest, zoo, selection, gate, loop, live predictions, report."""
    settings = load_config(config) if config else RunConfig()
    _run(data, _with_compute(settings, device, scheduler, workers), out, resume=resume, cache=cache)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
) -> None:
    """Write RUN/report.html anew."""
    from eravane.report import write_report

    console.print(write_report(run_folder), highlight=False)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders; the first is the base.")],
    as_json: AsJson = False,
) -> None:
    """Tell whether a change is real: paired per-era differences with errors that know eras overlap."""
    from eravane.report.compare import compare as compare_runs

    found = compare_runs(runs)
    _print(found.as_dict() if as_json else found.as_text())


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Tell what this machine can do, and what to do about each problem."""
    from eravane.doctor import as_text
    from eravane.doctor import doctor as examine

    checks = examine()
    _print([dataclasses.asdict(check) for check in checks] if as_json else as_text(checks))


def _run(data: Path, config: RunConfig, out: Path, *, resume: bool, cache: Path | None) -> None:
    from eravane.batch import run as run_batch

    with _progress() as progress:
        result = run_batch(data, config, out, resume=resume, cache=cache, progress=progress)
    console.print(metrics_table(result.metrics))
    console.print(gain_sentence(result.metrics), highlight=False)
    if result.metrics["leaking"]:
        console.print("LEAKING: a lag is shorter than the labels need; these scores mean nothing", style="bold red")
    console.print(f"report {result.report}", highlight=False, soft_wrap=True)


@contextmanager
def _progress() -> Iterator[ConsoleProgress]:
    with ConsoleProgress(console) as progress:
        yield progress


def _with_compute(config: RunConfig, device: str = "", scheduler: str = "", workers: int = 0) -> RunConfig:
    given = {"device": device, "scheduler": scheduler, "workers": workers}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value}
    if device and device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is auto, cpu or cuda, given {device!r}")
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, **changes))


def _era_range(text: str) -> tuple[int | None, int | None]:
    first, separator, last = text.partition(":")
    if text and not (separator and all(part.isdecimal() or not part for part in (first, last))):
        raise ConfigError(f"--eras is FROM:TO such as 101:574, given {text!r}")
    return (int(first) if first else None), (int(last) if last else None)


def _print(content: Any) -> None:
    if isinstance(content, str):
        console.print(content, highlight=False)
    else:
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
