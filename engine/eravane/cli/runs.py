"""Commands about runs: plan, run, step, report, compare."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from eravane import api
from eravane.cli.app import AsJson, RunPath, app, console, echo, progress, show
from eravane.cli.progress import gain_sentence, print_metrics
from eravane.cli.tournament import Wait, WaitHours, submissions
from eravane.core.config import RunConfig
from eravane.core.errors import ConfigError, SubmitError
from eravane.core.settings import MOST_SEED

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

Adopt = Annotated[bool, typer.Option("--adopt", help="Let a run of an older release go on under the present rules.")]


@app.command(rich_help_panel="Runs")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the made data, the cache and the run.")] = Path("demo"),
    preset: Annotated[str, typer.Option(help="Size of the made data: tiny or small.")] = "small",
    seed: Annotated[int, typer.Option(help="Seed of data and run.", min=0, max=MOST_SEED)] = 0,
    device: Device = "",
) -> None:
    """Make a Numerai-shaped dataset, run the whole batch on it, and show the result."""
    data = out / "data"
    if not (data / "features.json").is_file():
        with progress() as shown:
            api.synth(data, preset, progress=shown, seed=seed)
        echo(f"made data in {data}")
    config = _with_compute(api.demo_config(preset, seed), device)
    _run(data, config, out / "run", resume=(out / "run").exists(), cache=out / "cache")


@app.command(rich_help_panel="Runs")
def run(
    data: Annotated[Path, typer.Argument(help="Folder with Numerai's files, or a store made by `eravane ingest`.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    config: Config = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    device: Device = "",
    scheduler: Annotated[str, typer.Option(help="Address of a running Dask scheduler.")] = "",
    workers: Annotated[int, typer.Option(help="Models trained at once (0: as configured).", min=0, max=10_000)] = 0,
    cache: Cache = None,
    rebuild_store: Annotated[
        bool, typer.Option("--rebuild-store", help="Ingest from scratch, for data whose old eras changed.")
    ] = False,
    adopt: Adopt = False,
    replay_of: Annotated[
        Path | None, typer.Option(help="Repeat a run with its weekly steps, labels as late as it had them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole batch: ingest, zoo, selection, gate, loop, live predictions, report."""
    settings = api.as_config(config, out if resume else replay_of, adopt=adopt)
    settings = _with_compute(settings, device, scheduler, workers)
    how = {"resume": resume, "cache": cache, "rebuild_store": rebuild_store, "adopt": adopt, "replay_of": replay_of}
    _run(data, settings, out, as_json=as_json, **how)


@app.command(rich_help_panel="Runs")
def plan(
    data: Annotated[
        Path,
        typer.Argument(help="Folder with Numerai's files, a store, or v5.3 for the published shape of that version."),
    ],
    config: Config = None,
    device: Device = "",
    cores: Annotated[int, typer.Option(help="Cores of another machine (0: this one's).", min=0, max=10_000)] = 0,
    gpus: Annotated[int, typer.Option(help="GPUs of the machine, with --device cuda.", min=1, max=1_000)] = 1,
    as_json: AsJson = False,
) -> None:
    """Predict the cost of a run: time, memory and disk by stage, and changes that would make it fit."""
    found = api.plan(data, _with_compute(api.as_config(config), device), cores=cores, gpus=gpus)
    show(found.as_dict(), "\n".join(found.lines()), as_json=as_json)


@app.command(rich_help_panel="Runs")
def step(
    run: RunPath,
    data: Annotated[Path, typer.Option(help="Folder with the newest files, or a store.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Submit to this model slot afterwards; may be given several times.")
    ] = None,
    no_submit: Annotated[bool, typer.Option("--no-submit", help="Send nothing, even with --model.")] = False,
    wait: Wait = False,
    wait_hours: WaitHours = 6.0,
    cache: Cache = None,
    adopt: Adopt = False,
) -> None:
    """Run one production week: new eras and labels, updates, live predictions; prints one JSON line.

    Exit code 1 where predictions were to be sent and a model has no submission.
    """
    if wait:
        api.await_round(wait_hours)
    with progress(aside=True, quiet=True) as shown:
        done = api.step(run, data=data, cache=cache, progress=shown, adopt=adopt)
    sent, failed = _sent(run, model or [], done.live_era) if model and not no_submit else ([], False)
    echo(json.dumps({**done.as_dict(), "submitted": sent}, default=str))
    if failed:
        raise typer.Exit(1)


def _sent(run: Path, models: list[str], live_era: int | None) -> tuple[list[dict[str, object]], bool]:
    """Outcome of every model's submission, and whether a model has none."""
    if live_era is None:
        reason = "the data have no live rows"
    else:
        try:
            return submissions(run, models)
        except SubmitError as error:
            reason = str(error)
    return [{"model": name, "status": "failed", "error": reason} for name in models], True


@app.command(rich_help_panel="Runs")
def report(run: RunPath) -> None:
    """Write RUN/report.html again, also for an unfinished run."""
    echo(str(api.report(run)))


@app.command(rich_help_panel="Runs")
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders; the first is the base.")],
    as_json: AsJson = False,
) -> None:
    """Compare runs: paired per-era differences with standard errors that account for overlapping eras."""
    found = api.compare(*runs)
    show(found.as_dict(), found.as_text(), as_json=as_json)


def _run(
    data: Path,
    config: RunConfig,
    out: Path,
    *,
    as_json: bool = False,
    **how: Any,
) -> None:
    with progress(aside=as_json) as shown:
        result = api.run(config, data=data, out=out, progress=shown, **how)
    if as_json:
        facts = {"run": result.path, "report": result.report, "warnings": result.manifest["warnings"]}
        show({**facts, "metrics": dict(result.metrics)}, "", as_json=True)
        return
    print_metrics(console, result.metrics)
    echo(gain_sentence(result.metrics, result.judgeable_eras))
    for warning in result.manifest["warnings"]:
        echo(f"warning: {warning}")
    if result.metrics["leaking"]:
        console.print("LEAKING: a lag is shorter than the labels need; these scores are void", style="bold red")
    echo(f"report {result.report}")


def _with_compute(config: RunConfig, device: str = "", scheduler: str = "", workers: int = 0) -> RunConfig:
    given = {"device": device, "scheduler": scheduler, "workers": workers}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value}
    if device and device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"--device is auto, cpu or cuda, given {device!r}")
    return dataclasses.replace(config, compute=dataclasses.replace(config.compute, **changes))
