"""Commands of the tournament."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from eravane.cli.app import AsJson, RunPath, app, console, progress, show, tell
from eravane.cli.progress import ConsoleProgress, number, print_table

Model = Annotated[str, typer.Option(help="Model slot of the account.")]
Models = Annotated[list[str], typer.Option("--model", help="Model slot of the account; may be given several times.")]
MEBIBYTE = 1 << 20


@app.command()
def fetch(
    out: Annotated[Path, typer.Argument(help="Folder of the dataset; made, or brought up to date.")],
    version: Annotated[str, typer.Option(help="Dataset version.")] = "v5.3",
    file: Annotated[
        list[str] | None, typer.Option(help="Only this file; may be given several times (default: the four needed).")
    ] = None,
) -> None:
    """Download the dataset: resumes after interruptions, verifies every file."""
    from eravane.tournament.fetch import fetch as bring

    with progress() as shown:
        found = bring(out, version, file, progress=_in_mebibytes(shown))
    tell(f"{version} in {out}: {', '.join(found.fetched) or 'nothing new'}")
    if found.newer:
        tell(f"the tournament offers {found.newer}; fetch it into a folder of its own with --version {found.newer}")


@app.command()
def submit(
    run: RunPath,
    model: Models,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, send nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send late or unusual predictions, and ones that were sent before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send a run's live predictions, once, verified, with a receipt."""
    from eravane.tournament.submit import submit as send

    receipts = send(run, model, dry_run=dry_run, force=force)
    lines = [
        f"{receipt.model}: {receipt.status}, round {receipt.round}, {receipt.rows:,} predictions"
        + (f", submission {receipt.submission_id}" if receipt.submission_id else "")
        + (", LATE" if receipt.late else "")
        for receipt in receipts
    ]
    show(receipts, "\n".join(lines), as_json=as_json)


@app.command()
def diagnose(
    run: RunPath,
    model: Model,
    data: Annotated[Path | None, typer.Option(help="Dataset folder (default: the one of the run).")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload validation predictions and show the tournament's diagnostics beside the run's own numbers."""
    from eravane.tournament.diagnose import diagnose as examine

    found = examine(run, model, data=data)
    if as_json:
        show(found, "", as_json=True)
        return
    rows = [(row.metric, number(row.numerai), number(row.ours), str(row.eras)) for row in found.comparisons]
    print_table(console, f"diagnostics over {found.eras} eras", ("metric", "tournament", "eravane", "eras"), rows)


@app.command()
def scores(
    model: Model,
    run: Annotated[Path | None, typer.Option(help="Run folder whose backtest is shown beside the live scores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's live scores beside its backtest, and the current payout multipliers."""
    from eravane.tournament.scores import scores as read

    sheet = read(model, run)
    if as_json:
        show(sheet, "", as_json=True)
        return
    rows = [
        (
            row.metric,
            *(str(row.rounds), str(row.resolved)),
            *(number(row.summary.corr_mean), number(row.summary.sharpe, 2)),
            number(row.promised.corr_mean) if row.promised else "-",
            number(row.t, 2),
        )
        for row in sheet.scores
    ]
    columns = ("metric", "rounds", "resolved", "mean", "Sharpe", "promised", "t")
    print_table(console, f"live scores of {model}", columns, rows)
    for pays in sheet.multipliers:
        tell(f"round {pays.round} pays {number(pays.multiplier, 2)} x {pays.metric}")


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write, ending in .pkl.")] = Path("model.pkl"),
    check: Annotated[
        bool, typer.Option("--check", help="Load it in a fresh interpreter without eravane and compare predictions.")
    ] = False,
    python: Annotated[str, typer.Option(help="That interpreter (default: the present one).")] = sys.executable,
    as_json: AsJson = False,
) -> None:
    """Write a finished run as one file that Numerai's hosted prediction runs by itself."""
    from eravane.pipeline.export import export as write

    done = write(run, out, check=check, python=python)
    checked = (
        "" if done.difference is None else f"; largest difference from the run's predictions {done.difference:.1g}"
    )
    show(done, f"{out} ({done.size / 1e6:.1f} MB): {done.note}{checked}", as_json=as_json)


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="Model file (.pkl) made for Numerai's hosted prediction.")],
    model: Model,
    data_version: Annotated[str, typer.Option(help="Dataset whose live file the model is given.")] = "v5.3",
    python: Annotated[str, typer.Option(help="Python minor that the file was made with.")] = "3.12",
) -> None:
    """Upload a model file to a model slot, which then takes no predictions from submit."""
    from eravane.tournament.upload import upload as send

    done = send(file, model, data_version=data_version, python=python)
    tell(f"{model} now predicts with {file} on {done.data_version} in {done.image} (upload {done.upload_id})")


def _in_mebibytes(shown: ConsoleProgress) -> Callable[[str, int, int], None]:
    """Shows (file, bytes here, bytes in all) as one stage per file."""
    current = ""

    def at(file: str, here: int, total: int) -> None:
        nonlocal current
        if file != current:
            current = file
            shown.start(f"{file} (MiB)", max(1, total // MEBIBYTE))
        shown.reach(here // MEBIBYTE)

    return at
