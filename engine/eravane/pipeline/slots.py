"""What Python and the command line ask of the tournament: datasets, submissions, scores, model files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eravane.tournament.diagnose import Diagnosis
    from eravane.tournament.fetch import Fetched
    from eravane.tournament.overview import Rule
    from eravane.tournament.receipts import Receipt
    from eravane.tournament.scores import ScoreSheet
    from eravane.tournament.upload import Uploaded

Place = str | PathLike[str]
ByFile = Callable[[str, int, int], None]
"""Called with a file's name, what is done of it and what there is in all."""


def fetch(
    out: Place, version: str = "v5.3", files: Sequence[str] | None = None, *, progress: ByFile | None = None
) -> Fetched:
    """Download a dataset: resumes after interruptions, verifies every file.

    Args:
        out: folder of the dataset; made, or brought up to date.
        version: of the dataset.
        files: only these (None: the four that are needed, and what comes beside them).
        progress: called with a file's name, bytes here and bytes in all.

    Raises:
        SubmitError: the tournament does not answer, or offers no such file.
    """
    from eravane.tournament import fetch as fetching

    return fetching.fetch(Path(out), version, files, progress=progress)


def submit(
    run: Place, models: Sequence[str], *, dry_run: bool = False, force: bool = False, wait_hours: float = 0.0
) -> list[Receipt]:
    """Send a run's live predictions to model slots, once, verified, with a receipt each.

    Args:
        run: folder of a run with live predictions.
        models: names of model slots.
        dry_run: check everything, send nothing.
        force: send late or unusual predictions, and ones that were sent before.
        wait_hours: hours to wait for a round to open (0: none).

    Raises:
        SubmitError: the predictions cannot or must not be sent.
        PartlySubmittedError: some of several models have no submission.
    """
    from eravane.tournament import submit as submitting

    return submitting.submit(Path(run), models, dry_run=dry_run, force=force, wait_s=3600 * wait_hours)


def await_round(wait_hours: float = 6.0) -> int:
    """Wait until a round is open; returns its number.

    Raises:
        SubmitError: none opened in time.
    """
    from eravane.tournament import connect
    from eravane.tournament import submit as submitting

    return submitting.await_round(connect(), 3600 * wait_hours).number


def rules(config: Place | None = None, run: Place | None = None) -> list[Rule]:
    """The rules in force, each with where it comes from.

    Args:
        config: TOML configuration whose multipliers override the payout rule.
        run: run folder whose target, horizon and rule are listed.

    Raises:
        ConfigError, RunError: the configuration or the run cannot be read.
    """
    from eravane.tournament.overview import rules_in_force

    return rules_in_force(None if config is None else Path(config), None if run is None else Path(run))


def diagnose(run: Place, model: str, *, data: Place | None = None) -> Diagnosis:
    """Upload validation predictions; the tournament's diagnostics beside the run's own numbers.

    Args:
        run: folder of a finished run.
        model: model slot.
        data: dataset folder (None: the one of the run).

    Raises:
        SubmitError: the tournament refuses, or has not answered in time.
    """
    from eravane.tournament import diagnose as diagnosing

    return diagnosing.diagnose(Path(run), model, data=None if data is None else Path(data))


def scores(model: str, run: Place | None = None) -> ScoreSheet:
    """A model's live scores, beside the backtest of a run where one is given.

    Raises:
        SubmitError: there is no such model, or the tournament does not answer.
    """
    from eravane.tournament import scores as scoring

    return scoring.scores(model, None if run is None else Path(run))


def upload(
    file: Place,
    model: str,
    *,
    data_version: str = "v5.3",
    python: str | None = None,
    wait: bool = False,
    assign: bool = False,
    wait_minutes: float = 30.0,
    progress: Callable[[str], None] | None = None,
) -> Uploaded:
    """Upload a model file to a model slot, which takes no predictions from `submit` once it is assigned.

    Args:
        file: model file (.pkl) made by `export`.
        model: model slot.
        data_version: dataset whose live file the model is given.
        python: Python minor that the file was made with (None: this one's).
        wait: wait until the tournament has validated it.
        assign: wait, then let the slot predict with it.
        wait_minutes: minutes after which waiting ends.
        progress: called with every state of the validation.

    Raises:
        SubmitError: the file or the image does not fit, or the tournament refuses, or its validation failed.
    """
    from eravane.tournament import upload as uploading

    return uploading.upload(
        Path(file),
        model,
        data_version=data_version,
        python=python or uploading.PYTHON,
        wait=wait,
        assign=assign,
        wait_s=60 * wait_minutes,
        progress=progress or (lambda text: None),
    )
