"""Diagnostics: the tournament's scores of validation predictions, next to ours."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from eravane.calendar.eras import era_label
from eravane.core.errors import DataError, SubmitError
from eravane.core.files import Place
from eravane.core.settings import require_between
from eravane.data.store.source import Source
from eravane.scoring.metrics import summarise
from eravane.tournament import LONGEST_S, connect
from eravane.tournament.receipts import check_model_name
from eravane.tournament.references import (
    BMC,
    CORR,
    FNC,
    MMC,
    era_scores,
    manifest_of,
    stored_predictions,
    tournament_benchmark,
)
from eravane.tournament.transport import TransientError

if TYPE_CHECKING:
    from eravane.tournament.client import Client

DONE, FAILED = "done", ("failed", "error", "rejected")
# Our metric -> the field of one era in the tournament's diagnostics.
FIELDS = {CORR: "validationCorr", MMC: "validationMmc", BMC: "validationBmc", FNC: "validationFeatureNeutralCorrV3"}


@dataclass(frozen=True)
class Comparison:
    """One number by the tournament and by us, over the eras that both have scored; None where one has none."""

    metric: str
    numerai: float | None
    ours: float | None
    eras: int


@dataclass(frozen=True)
class Diagnosis:
    """A finished diagnostics run.

    Attributes:
        run_id: the tournament's id.
        eras, rows: what was sent: complete validation eras only.
        message: the tournament's message about it.
        comparisons: CORR mean, Sharpe and drawdown, and the means of MMC, BMC and FNC.
    """

    run_id: str
    eras: int
    rows: int
    message: str
    comparisons: tuple[Comparison, ...]


def diagnose(
    run: Place,
    model: str,
    *,
    data: Place | None = None,
    wait_minutes: float = 60.0,
    client: Client | None = None,
) -> Diagnosis:
    """Upload a run's validation predictions, wait for the diagnostics, and compare them with our own scores.

    Args:
        run: run folder.
        model: model slot of the account.
        data: dataset folder; None takes the one that the run was made from.
        wait_minutes: minutes after which waiting ends.
        client: the tournament's API; None connects with the credentials at hand.

    Raises:
        SubmitError: no validation era is predicted completely, the model is unknown, or the diagnostics failed.
        ApiError: the tournament refuses, or does not finish in time.
        DataError, RunError: the dataset or the run folder lacks what is needed.
    """
    run = Path(run)
    check_model_name(model)
    require_between("wait_minutes", wait_minutes, 0, LONGEST_S / 60)
    client = client or connect()
    model_id = client.model(model).id
    folder = Path(data or manifest_of(run)["data"]["path"])
    frame, ours = complete_eras(run, folder), era_scores(run, folder)
    with tempfile.TemporaryDirectory(prefix="eravane-") as scratch:
        path = Path(scratch) / "validation.csv"
        frame[["id", "prediction"]].to_csv(path, index=False)
        run_id = client.start_diagnostics(lambda: path.open("rb"), model_id)
    verdict = _await(client, model_id, run_id, 60 * wait_minutes)
    return Diagnosis(
        run_id=run_id,
        eras=frame["era"].nunique(),
        rows=len(frame),
        message=str(verdict.get("message") or ""),
        comparisons=tuple(compare(client.shaped("diagnostics", lambda: _per_era(verdict)), ours, _days(run))),
    )


def complete_eras(run: Path, data: Path) -> pd.DataFrame:
    """The predictions of the validation eras that are predicted for every row: id, era, prediction.

    An era that lacks rows is refused by the tournament as a whole.

    Raises:
        SubmitError: there is no such era.
        DataError, RunError: validation.parquet or predictions.parquet is missing.
    """
    made, validation = stored_predictions(run)[["id", "prediction"]], data / "validation.parquet"
    if not validation.is_file():
        raise DataError(f"{validation} is missing; it lists the eras that can be diagnosed")
    source = Source(validation)
    kinds, kind_N = source.data_types()
    rows = pd.DataFrame({"id": source.ids.to_pylist(), "era": [era_label(era) for era in source.eras().tolist()]})
    if "data_type" in source.types:
        rows = rows[np.isin(kind_N, [place for place, kind in enumerate(kinds) if kind == "validation"])]
        if rows.empty:
            raise DataError(f"{validation} has no row whose data_type is 'validation'; it has {', '.join(kinds[:4])}")
    joined = rows.merge(made, on="id", how="left")
    whole = joined["prediction"].notna().groupby(joined["era"]).transform("all")
    if not whole.any():
        raise SubmitError(f"{run} predicts no validation era completely; its loop must reach into the validation eras")
    return joined[whole]


def _per_era(verdict: Mapping[str, Any]) -> dict[str, pd.Series]:
    """Metric -> score per era number, of diagnostics as the tournament returns them."""
    eras = verdict.get("perEraDiagnostics") or []
    return {
        metric: pd.Series(
            {int(era["era"]): float(era[field]) for era in eras if era.get(field) is not None}, dtype="float64"
        )
        for metric, field in FIELDS.items()
    }


def _days(run: Path) -> int | None:
    """Trading days of the run's labels; None where an older run did not note them."""
    horizon = manifest_of(run).get("horizon")
    return int(horizon["days"]) if isinstance(horizon, Mapping) and "days" in horizon else None


def compare(
    numerai: Mapping[str, pd.Series], ours: Mapping[str, pd.Series], days: int | None = None
) -> list[Comparison]:
    """Both sides' numbers over the eras that both have scored.

    Args:
        numerai: metric -> score per era number.
        ours: the same; BMC carries the benchmark's name, which the comparison then names.
        days: trading days of the labels, by which the benchmark is chosen.
    """
    found = []
    for metric, theirs in numerai.items():
        name = tournament_benchmark(ours, days) if metric == BMC else metric
        mine = ours.get(name or "", pd.Series(dtype="float64"))
        found += _rows(name or metric, theirs, mine)
    return found


def _rows(metric: str, theirs: pd.Series, mine: pd.Series) -> list[Comparison]:
    shared = theirs.index.intersection(mine.index)
    both = len(shared) > 0
    left = summarise(theirs[shared] if both else theirs)
    right = summarise(mine[shared] if both else mine)
    numbers = {"mean": (left.corr_mean, right.corr_mean)}
    if metric == CORR:
        numbers |= {"Sharpe": (left.sharpe, right.sharpe), "max drawdown": (left.max_drawdown, right.max_drawdown)}
    return [
        Comparison(f"{metric} {name}", _number(first), _number(second), len(shared))
        for name, (first, second) in numbers.items()
    ]


def _number(value: float) -> float | None:
    return None if value != value else value


def _await(client: Client, model_id: str, run_id: str, wait_s: float) -> dict[str, Any]:
    """The finished diagnostics.

    Raises:
        SubmitError: the tournament could not score the predictions.
        ApiError: it is not done at the deadline.
    """

    def attempt() -> dict[str, Any]:
        verdict = client.diagnostics(model_id, run_id)
        status = str(verdict.get("status"))
        if status in FAILED:
            raise SubmitError(f"the tournament could not diagnose the predictions: {verdict.get('message') or status}")
        if status != DONE:
            raise TransientError(f"status {status!r}")
        return verdict

    return dataclasses.replace(client.patience, deadline_s=wait_s).insist("diagnostics", attempt)
