"""Commands about data: fetch it, make it, take it into a store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from eravane import api
from eravane.cli.app import app, echo, progress
from eravane.cli.progress import ConsoleProgress
from eravane.core.errors import ConfigError
from eravane.core.events import ByFile
from eravane.core.memory import MEBIBYTE
from eravane.core.settings import MOST_SEED


@app.command(rich_help_panel="Data")
def fetch(
    out: Annotated[Path, typer.Argument(help="Folder of the dataset; made, or brought up to date.")],
    version: Annotated[str, typer.Option(help="Dataset version.")] = "v5.3",
    file: Annotated[
        list[str] | None, typer.Option(help="Only this file; may be given several times (default: the four needed).")
    ] = None,
) -> None:
    """Download the dataset: resumes after interruptions, verifies every file."""
    with progress() as shown:
        found = api.fetch(out, version, file, progress=_by_file(shown))
    echo(f"{version} in {out}: {', '.join(found.fetched) or 'nothing new'}")
    if found.newer:
        echo(f"the tournament offers {found.newer}; fetch it into a folder of its own with --version {found.newer}")


@app.command(rich_help_panel="Data")
def synth(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    preset: Annotated[str, typer.Option(help="tiny, small or v5.3.")] = "small",
    eras: Annotated[int, typer.Option(help="Historical eras (0: the preset's).", min=0, max=100_000)] = 0,
    rows: Annotated[int, typer.Option(help="Mean rows per era (0: the preset's).", min=0, max=1_000_000)] = 0,
    regimes: Annotated[str, typer.Option(help="Where regimes show: structure, marginal or hidden.")] = "structure",
    null: Annotated[bool, typer.Option("--null", help="No regimes: every group keeps its weight.")] = False,
    features_json: Annotated[
        Path | None, typer.Option(help="A Numerai features.json whose names, sets and groups are used.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=MOST_SEED)] = 0,
) -> None:
    """Write a dataset with Numerai's file names, columns and types, and a planted signal."""
    changes: dict[str, Any] = {"seed": seed, "regimes": regimes, "null": null, "features_json": features_json}
    changes |= {name: value for name, value in (("eras", eras), ("rows", rows)) if value}
    with progress() as shown:
        api.synth(out, preset, progress=shown, **changes)
    echo(f"made data in {out}")


@app.command(rich_help_panel="Data")
def ingest(
    data: Annotated[Path, typer.Argument(help="Folder with train, validation and live parquet and features.json.")],
    store: Annotated[Path, typer.Argument(help="Store to make, or to bring up to date.")],
    features: Annotated[str, typer.Option(help="Feature set to take (small, medium, all).")] = "all",
    eras: Annotated[str, typer.Option(help="FROM:TO, both inclusive; either may be left out.")] = "",
    every: Annotated[int, typer.Option(help="Take every n-th era.", min=1, max=1_000_000)] = 1,
    device: Annotated[str, typer.Option(help="What decodes the files: cpu, cuda (by cuDF), or auto.")] = "cpu",
) -> None:
    """Stream parquet files into a store of columns x rows; an existing store gets what is new."""
    first, last = _era_range(eras)
    with progress() as shown:
        made = api.ingest(
            data,
            store,
            features=features,
            first_era=first,
            last_era=last,
            every=every,
            device=device,
            note=echo,
            progress=_by_file(shown, 100),
        )
    if made.report is not None:
        for line in _changes(made.report):
            echo(line)
    echo(f"store {store}: {made.index.rows:,} rows, {len(made.index)} eras, {len(made.columns)} features")


def _by_file(shown: ConsoleProgress, steps: int = 0) -> ByFile:
    """Shows each file as one stage of so many steps; 0 takes the mebibytes that it has."""
    current = ""

    def at(file: str, done: int, total: int) -> None:
        nonlocal current
        size = steps or max(1, total // MEBIBYTE)
        if file != current:
            current = file
            shown.start(file if steps else f"{file} (MiB)", size)
        shown.reach(done * size // max(1, total) if steps else done // MEBIBYTE)

    return at


def _changes(report: api.IngestReport) -> Iterator[str]:
    """Changes by an ingest, one line each."""
    if report.eras_added:
        yield f"added eras {report.eras_added[0]} to {report.eras_added[-1]}: {report.rows_added:,} rows"
    for done in ("filled", "corrected", "withdrawn"):
        for target, count in getattr(report, f"labels_{done}").items():
            yield f"{count:,} labels of {target} {done}"
    if report.unchanged:
        yield f"unchanged since last time: {', '.join(report.unchanged)}"


def _era_range(text: str) -> tuple[int | None, int | None]:
    first, separator, last = text.partition(":")
    if text and not (separator and all((part.isdecimal() and len(part) < 7) or not part for part in (first, last))):
        raise ConfigError(f"--eras is FROM:TO such as 101:574, given {text!r}")
    return (int(first) if first else None), (int(last) if last else None)
