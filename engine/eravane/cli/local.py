"""Commands without the tournament: data, runs, reports, this machine."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eravane.cli.app import AsJson, RunPath, app, console, progress, show, tell
from eravane.cli.progress import ConsoleProgress, gain_sentence, print_metrics
from eravane.core.config import RunConfig, load_config
from eravane.core.errors import ConfigError

if TYPE_CHECKING:
    from eravane.data.store.store import IngestReport

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="TOML configuration; without it every key has its default.")
]
Device = Annotated[
    str, typer.Option(help="auto (a working GPU, else the CPU), cpu or cuda; empty: the configuration's.")
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of stores and finished boosters (default: $ERAVANE_CACHE, else ~/.cache/eravane)."),
]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the made data, the cache and the run.")] = Path("demo"),
    preset: Annotated[str, typer.Option(help="Size of the made data: tiny or small.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of data and run.")] = 0,
    device: Device = "",
) -> None:
    """Make a Numerai-shaped dataset, run the whole batch on it, and show the result."""
    from eravane.pipeline.demo import demo_config

    data = out / "data"
    if not (data / "features.json").is_file():
        synth(data, preset=preset, seed=seed)
    config = _with_compute(dataclasses.replace(demo_config(preset), seed=seed), device)
    _run(data, config, out / "run", resume=(out / "run").exists(), cache=out / "cache")


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    preset: Annotated[str, typer.Option(help="tiny, small or v5.3.")] = "small",
    eras: Annotated[int, typer.Option(help="Historical eras (0: the preset's).", min=0)] = 0,
    rows: Annotated[int, typer.Option(help="Mean rows per era (0: the preset's).", min=0)] = 0,
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
    with progress() as shown:
        shown.start("synth", config.eras + 1)  # the live era comes last
        synthesise(out, config, lambda done, total: shown.advance(f"era {done}"))
    tell(f"made data in {out}")


@app.command()
def ingest(
    data: Annotated[Path, typer.Argument(help="Folder with train, validation and live parquet and features.json.")],
    store: Annotated[Path, typer.Argument(help="Store to make, or to bring up to date.")],
    features: Annotated[str, typer.Option(help="Feature set to take (small, medium, all).")] = "all",
    eras: Annotated[str, typer.Option(help="FROM:TO, both inclusive; either may be left out.")] = "",
    every: Annotated[int, typer.Option(help="Take every n-th era.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="What decodes the files: cpu, cuda (by cuDF), or auto.")] = "cpu",
) -> None:
    """Stream parquet files into a store of columns x rows; an existing store gets what is new."""
    from eravane.backend import choose
    from eravane.data.catalog import FeatureCatalog
    from eravane.data.ingest import FEATURES_JSON
    from eravane.data.ingest import ingest as fill

    decode = choose(device, tell).decoder() if device != "cpu" else None  # type: ignore[arg-type]
    first, last = _era_range(eras)
    columns = FeatureCatalog.load(data / FEATURES_JSON, sets=[features]).columns
    with progress() as shown:
        made = fill(
            data, store, columns=list(columns), first_era=first, last_era=last, every=every, progress=_by_file(shown),
            decode=decode,
        )  # fmt: skip
    if made.report is not None:
        for line in _changes(made.report):
            tell(line)
    tell(f"store {store}: {made.index.rows:,} rows, {len(made.index)} eras, {len(made.columns)} features")


@app.command()
def run(
    data: Annotated[Path, typer.Argument(help="Folder with Numerai's files, or a store made by `eravane ingest`.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    config: Config = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    device: Device = "",
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    workers: Annotated[int, typer.Option(help="Models trained at once (0: as configured).", min=0)] = 0,
    cache: Cache = None,
    rebuild_store: Annotated[
        bool, typer.Option("--rebuild-store", help="Ingest from scratch, for data whose old eras changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole batch: ingest, zoo, selection, gate, loop, live predictions, report."""
    from eravane.api import as_config

    settings = as_config(config, out if resume else None)
    settings = _with_compute(settings, device, scheduler, workers)
    _run(data, settings, out, resume=resume, cache=cache, rebuild_store=rebuild_store, as_json=as_json)


@app.command()
def plan(
    data: Annotated[
        Path,
        typer.Argument(help="Folder with Numerai's files, a store, or v5.3 for the published shape of that version."),
    ],
    config: Config = None,
    device: Device = "",
    cores: Annotated[int, typer.Option(help="Cores of another machine (0: this one's).", min=0)] = 0,
    gpus: Annotated[int, typer.Option(help="GPUs of the machine, with --device cuda.", min=1)] = 1,
    as_json: AsJson = False,
) -> None:
    """Predict the cost of a run: time, memory and disk by stage, and changes that would make it fit."""
    from eravane.planning.cost import plan_cost
    from eravane.planning.shape import read_shape
    from eravane.planning.workload import this_machine

    settings = _with_compute(load_config(config) if config else RunConfig(), device)
    found = plan_cost(settings, read_shape(data, settings), this_machine(settings.compute.device, cores, gpus))
    show(found.as_dict(), "\n".join(found.lines()), as_json=as_json)


@app.command()
def step(
    run: RunPath,
    data: Annotated[Path, typer.Option(help="Folder with the newest files, or a store.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Submit to this model slot afterwards; may be given several times.")
    ] = None,
    no_submit: Annotated[bool, typer.Option("--no-submit", help="Send nothing, even with --model.")] = False,
    cache: Cache = None,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="Go on under the present rules where the run's own are no more.")
    ] = False,
) -> None:
    """Run one production week: new eras and labels, updates, live predictions; prints one JSON line."""
    from eravane.pipeline.batch import default_cache
    from eravane.pipeline.week import step as do_week

    with progress(aside=True, quiet=True) as shown:
        done = do_week(run, data, cache=cache or default_cache(), progress=shown, adopt=adopt)
    sent: list[Any] = []
    if model and not no_submit and done.live_era is not None:
        from eravane.tournament.submit import submit

        sent = [dataclasses.asdict(receipt) for receipt in submit(run, model)]
    tell(json.dumps({**done.as_dict(), "submitted": sent}, default=str))


@app.command()
def report(run: RunPath) -> None:
    """Write RUN/report.html again, also for an unfinished run."""
    from eravane.pipeline.reporting import report as write

    tell(str(write(run)))


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders; the first is the base.")],
    as_json: AsJson = False,
) -> None:
    """Compare runs: paired per-era differences with standard errors that account for overlapping eras."""
    from eravane import api

    found = api.load(runs[0]).compare(*runs[1:])
    show(found.as_dict(), found.as_text(), as_json=as_json)


@app.command()
def doctor(
    scheduler: Annotated[str, typer.Option(help="Address of a Dask scheduler to try.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check this machine and advise on each problem; exit code 1 where something must be fixed."""
    from eravane.planning.doctor import as_text
    from eravane.planning.doctor import doctor as examine

    checks = examine(scheduler)
    show(checks, as_text(checks), as_json=as_json)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)


def _run(
    data: Path,
    config: RunConfig,
    out: Path,
    *,
    resume: bool,
    cache: Path | None,
    rebuild_store: bool = False,
    as_json: bool = False,
) -> None:
    from eravane import api
    from eravane.report.facts import judgeable_eras

    with progress(aside=as_json) as shown:
        result = api.run(
            config, data=data, out=out, resume=resume, cache=cache, progress=shown, rebuild_store=rebuild_store
        )
    if as_json:
        facts = {"run": result.path, "report": result.report, "warnings": result.manifest["warnings"]}
        show({**facts, "metrics": dict(result.metrics)}, "", as_json=True)
        return
    print_metrics(console, result.metrics)
    tell(gain_sentence(result.metrics, judgeable_eras(result.manifest["lags"]["hac"])))
    for warning in result.manifest["warnings"]:
        tell(f"warning: {warning}")
    if result.metrics["leaking"]:
        console.print("LEAKING: a lag is shorter than the labels need; these scores are void", style="bold red")
    tell(f"report {result.report}")


def _by_file(shown: ConsoleProgress) -> Callable[[str, int, int], None]:
    """Shows (file, cells done, cells in all) as one stage of 100 steps per file."""
    current = ""

    def at(file: str, done: int, total: int) -> None:
        nonlocal current
        if file != current:
            current = file
            shown.start(file, 100)
        shown.reach(100 * done // max(1, total))

    return at


def _changes(report: IngestReport) -> Iterator[str]:
    """Changes by an ingest, one line each."""
    if report.eras_added:
        yield f"added eras {report.eras_added[0]} to {report.eras_added[-1]}: {report.rows_added:,} rows"
    for done in ("filled", "corrected", "withdrawn"):
        for target, count in getattr(report, f"labels_{done}").items():
            yield f"{count:,} labels of {target} {done}"
    if report.unchanged:
        yield f"unchanged since last time: {', '.join(report.unchanged)}"


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
