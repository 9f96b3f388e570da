"""Commands about model slots of the tournament: predictions, scores, model files."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eravane import api
from eravane.cli.app import AsJson, RunPath, app, console, echo, show
from eravane.cli.progress import number, print_table
from eravane.core.errors import PartlySubmittedError
from eravane.core.units import format_size

Model = Annotated[str, typer.Option(help="Model slot of the account.")]
Models = Annotated[list[str], typer.Option("--model", help="Model slot of the account; may be given several times.")]
Wait = Annotated[bool, typer.Option("--wait", help="First wait for a round to open, --wait-hours at most.")]
WaitHours = Annotated[
    float, typer.Option(help="Hours that --wait waits.", min=0.0, envvar="ERAVANE_WAIT_HOURS", show_envvar=True)
]
WaitMinutes = Annotated[
    float, typer.Option(help="Minutes to wait.", min=0.0, envvar="ERAVANE_WAIT_MINUTES", show_envvar=True)
]
PYTHON = f"3.{sys.version_info.minor}"


@app.command(rich_help_panel="Tournament")
def submit(
    run: RunPath,
    model: Models,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, send nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Send late or unusual predictions, and ones that were sent before.")
    ] = False,
    wait: Wait = False,
    wait_hours: WaitHours = 6.0,
    as_json: AsJson = False,
) -> None:
    """Send a run's live predictions, once, verified, with a receipt; exit code 1 where a model has no submission."""
    waits = wait_hours if wait else 0.0
    outcomes, failed = submissions(run, model, dry_run=dry_run, force=force, wait_hours=waits)
    show(outcomes, "\n".join(map(outcome_line, outcomes)), as_json=as_json)
    if failed:
        raise typer.Exit(1)


def submissions(run: Path, models: list[str], **options: Any) -> tuple[list[dict[str, object]], bool]:
    """Outcome of every model: receipts, and failures of some of several; and whether one failed.

    Raises:
        SubmitError: the only model has no submission.
    """
    try:
        return [dataclasses.asdict(receipt) for receipt in api.submit(run, models, **options)], False
    except PartlySubmittedError as error:
        failed = [{"model": name, "status": "failed", "error": reason} for name, reason in error.failures.items()]
        return [*map(dataclasses.asdict, error.receipts), *failed], True


def outcome_line(outcome: dict[str, object]) -> str:
    """One model's outcome for people."""
    if "error" in outcome:
        return f"{outcome['model']}: FAILED: {outcome['error']}"
    return (
        f"{outcome['model']}: {outcome['status']}, round {outcome['round']}, {outcome['rows']:,} predictions"
        + (f", submission {outcome['submission_id']}" if outcome["submission_id"] else "")
        + (", NOT the selected one" if outcome["selected"] is False else "")
        + (", LATE" if outcome["late"] else "")
    )


@app.command(rich_help_panel="Tournament")
def diagnose(
    run: RunPath,
    model: Model,
    data: Annotated[Path | None, typer.Option(help="Dataset folder (default: the one of the run).")] = None,
    wait_minutes: WaitMinutes = 60.0,
    as_json: AsJson = False,
) -> None:
    """Upload validation predictions and show the tournament's diagnostics beside the run's own numbers."""
    found = api.diagnose(run, model, data=data, wait_minutes=wait_minutes)
    if as_json:
        show(found, "", as_json=True)
        return
    rows = [(row.metric, number(row.numerai), number(row.ours), str(row.eras)) for row in found.comparisons]
    print_table(console, f"diagnostics over {found.eras} eras", ("metric", "tournament", "eravane", "eras"), rows)


@app.command(rich_help_panel="Tournament")
def scores(
    model: Model,
    run: Annotated[Path | None, typer.Option(help="Run folder whose backtest is shown beside the live scores.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model's live scores beside its backtest, and what a stake would have earned.

    Exit code 1 where a query failed; what else arrived is shown.
    """
    sheet = api.scores(model, run)
    if as_json:
        show(sheet.as_dict(), "", as_json=True)
    else:
        _show_scores(sheet)
    if sheet.failures:
        raise typer.Exit(1)


def _show_scores(sheet: api.ScoreSheet) -> None:
    columns = ("metric", "days", "rounds", "resolved", "mean", "Sharpe", "promised", "t", "against")
    print_table(console, f"live scores of {sheet.model}", columns, [_score_row(row) for row in sheet.scores])
    earned = sheet.earned
    if earned.rounds:
        echo(
            f"a stake of 1 on each of {len(earned.rounds)} rounds would have earned {number(earned.total, 3)} "
            f"({number(earned.mean, 4)} a round; {number(earned.resolved, 3)} in resolved rounds)"
        )
    echo(f"payout: {sheet.rule.sentence()}" if sheet.rule else "payout: the tournament did not state its rule")
    for note in (*sheet.notes, *(f"MISSING: {failure}" for failure in sheet.failures)):
        echo(note)


def _score_row(row: api.LiveScore) -> tuple[str, ...]:
    return (
        row.metric,
        "-" if row.days is None else str(row.days),
        *(str(row.rounds), str(row.resolved)),
        *(number(row.summary.corr_mean), number(row.summary.sharpe, 2)),
        number(row.promised.corr_mean) if row.promised else "-",
        number(row.t, 2),
        row.against or "-",
    )


@app.command(rich_help_panel="Tournament")
def rules(
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="TOML configuration whose multipliers override the rule.")
    ] = None,
    run: Annotated[Path | None, typer.Option(help="Run folder whose target, horizon and rule are shown.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the rules in force (round, payout, target, horizon, lags, overlap, image) and where each comes from."""
    found = api.rules(config, run)
    if as_json:
        show([dataclasses.asdict(rule) for rule in found], "", as_json=True)
        return
    print_table(console, "rules in force", ("rule", "value", "source"), [(r.name, r.value, r.source) for r in found])


@app.command(rich_help_panel="Tournament")
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="File to write, ending in .pkl.")] = Path("model.pkl"),
    check: Annotated[
        bool, typer.Option("--check", help="Load it in a fresh interpreter without eravane and compare predictions.")
    ] = False,
    python: Annotated[str, typer.Option(help="That interpreter (default: the present one).")] = sys.executable,
    pinned: Annotated[
        bool,
        typer.Option(
            "--pinned",
            help="With --check: also under pandas 2.3 and 3 with the oldest and newest XGBoost of the tournament's "
            "images; pip builds these environments once, in the cache.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a finished run as one file that Numerai's hosted prediction runs by itself."""
    done = api.export(run, out, check=check, python=python, pinned=check and pinned)
    checked = (
        "" if done.difference is None else f" Largest difference from the run's predictions: {done.difference:.1g}."
    )
    checked += "".join(f"; under {name} {difference:.1g}" for name, difference in done.pinned.items())
    show(done, f"{out} ({format_size(done.size)}): {done.note}{checked}", as_json=as_json)


@app.command(rich_help_panel="Tournament")
def upload(
    file: Annotated[Path, typer.Argument(help="Model file (.pkl) made for Numerai's hosted prediction.")],
    model: Model,
    data_version: Annotated[str, typer.Option(help="Dataset whose live file the model is given.")] = "v5.3",
    python: Annotated[str, typer.Option(help="Python minor that the file was made with.")] = PYTHON,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the tournament has validated it.")] = False,
    assign: Annotated[bool, typer.Option("--assign", help="Wait, then let the model slot predict with it.")] = False,
    wait_minutes: WaitMinutes = 30.0,
    as_json: AsJson = False,
) -> None:
    """Upload a model file to a model slot, which takes no predictions from submit once the file is assigned to it."""
    done = api.upload(
        file,
        model,
        data_version=data_version,
        python=python,
        wait=wait,
        assign=assign,
        wait_minutes=wait_minutes,
        progress=None if as_json else echo,
    )
    text = f"upload {done.upload_id} to {model}: {done.status}, {done.data_version} in {done.image}"
    if done.status != "assigned":
        text += "; the slot does not predict with it before it is assigned (--assign, or on the website)"
    show(done, text, as_json=as_json)
