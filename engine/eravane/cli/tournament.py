"""Commands about model slots of the tournament: predictions, scores, model files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from eravane import api
from eravane.cli.app import AsJson, RunPath, app, console, show, tell
from eravane.cli.progress import number, print_table

Model = Annotated[str, typer.Option(help="Model slot of the account.")]
Models = Annotated[list[str], typer.Option("--model", help="Model slot of the account; may be given several times.")]


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
    receipts = api.submit(run, model, dry_run=dry_run, force=force)
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
    found = api.diagnose(run, model, data=data)
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
    sheet = api.scores(model, run)
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
    done = api.export(run, out, check=check, python=python)
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
    done = api.upload(file, model, data_version=data_version, python=python)
    tell(f"{model} now predicts with {file} on {done.data_version} in {done.image} (upload {done.upload_id})")
