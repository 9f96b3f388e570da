"""Submitting a run's live predictions: checked, sent once, read back, and recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from eravane.core.errors import PartlySubmittedError, SubmitError
from eravane.core.files import Place, exclusive
from eravane.core.settings import require_between
from eravane.data.catalog import FeatureCatalog
from eravane.tournament import LONGEST_S, connect
from eravane.tournament.caution import correlation_objections, objections, profile_of
from eravane.tournament.credentials import HOW_TO
from eravane.tournament.dataset import examine, live_ids
from eravane.tournament.download import download
from eravane.tournament.fetch import VERSION
from eravane.tournament.predictions import (
    FILE_NAME,
    parse_predictions,
    read_live_predictions,
    validate_live_predictions,
)
from eravane.tournament.receipts import (
    DRY_RUN,
    FOLDER,
    FOUND,
    SENT,
    Profile,
    Receipt,
    check_model_name,
    keep_receipt,
    predictions_of,
    receipts,
)
from eravane.tournament.transport import TransientError

if TYPE_CHECKING:
    from eravane.tournament.answers import Model, Round, Submission
    from eravane.tournament.client import Client

EVERY_S = 60.0  # between two looks for an open round
TRIES = 2  # a submission that does not read back as it was sent is sent once more


def await_round(
    wait_hours: float = 6.0, *, client: Client | None = None, now: Callable[[], datetime] | None = None
) -> Round:
    """Wait until a round is open; one that opens late does so within hours (forum; dashboards).

    Args:
        wait_hours: hours after which waiting ends.
        client: the tournament's API; None connects with the credentials at hand.
        now: returns the time, with a zone; None takes the machine's clock.

    Raises:
        SubmitError: none opened in time.
    """
    require_between("wait_hours", wait_hours, 0, LONGEST_S / 3600)
    client, clock = client or connect(), now or partial(datetime.now, UTC)

    def attempt() -> Round:
        current = client.current_round()
        if current is None or clock() < current.opens or (current.closes is not None and clock() >= current.closes):
            raise TransientError("no round is open")
        return current

    patience = dataclasses.replace(
        client.patience, deadline_s=3600 * wait_hours, first_wait_s=EVERY_S, longest_wait_s=EVERY_S
    )
    return patience.insist("waiting for a round to open", attempt)


def submit(
    run: Place,
    models: Sequence[str],
    *,
    dry_run: bool = False,
    force: bool = False,
    wait_hours: float = 0.0,
    version: str = VERSION,
    client: Client | None = None,
    now: Callable[[], datetime] | None = None,
) -> list[Receipt]:
    """Send a run's live predictions to one or more models; returns a receipt for each.

    The predictions must be for exactly the rows of the round's live file. They are held back when the round takes
    no stakes any more, or when they differ from the model's last submission more than they should, unless forced.
    Predictions that the round already has are not sent again, unless forced: repeating a call that was cut off
    anywhere ends with one valid submission.

    Args:
        run: run folder with `live_predictions.csv`; receipts go to `submissions/` in it.
        models: model slots of the account.
        dry_run: do everything but send; without credentials what needs them is left out.
        force: send late predictions, unusual ones, and those that the round already has.
        wait_hours: hours to wait for a round to open (0: none).
        version: dataset version that the predictions were made from.
        client: the tournament's API; None connects with the credentials at hand.
        now: returns the time, with a zone; None takes the machine's clock.

    Raises:
        SubmitError: the only model was not submitted to, and why.
        PartlySubmittedError: naming each of several models that was not; receipts of the others are kept.
        ApiError: the tournament refuses, or does not answer before the deadline.
    """
    run = Path(run)
    for name in models:
        check_model_name(name)
    if not run.is_dir():
        raise SubmitError(f"{run} is no folder; give the run folder that `eravane run` made")
    client, now = client or connect(), now or partial(datetime.now, UTC)
    if not client.authorized and not dry_run:
        raise SubmitError(f"submitting needs an API key: {HOW_TO}")
    frame, content = read_live_predictions(run / FILE_NAME)
    opened = await_round(wait_hours, client=client, now=now) if wait_hours else client.current_round()
    current, late = _open_round(opened, now(), force=force)
    profile = _examine_predictions(client, frame, version, _live_weights(run))
    dispatch = _Dispatch(client, run, frame, content, profile, current, late, now, dry_run=dry_run, force=force)
    if dry_run:
        return _all(models, dispatch.to)
    (run / FOLDER).mkdir(exist_ok=True)
    with exclusive(run / FOLDER):
        return _all(models, dispatch.to)


def _all(names: Sequence[str], send: Callable[[str], Receipt]) -> list[Receipt]:
    """Send to every model, also after failures of others.

    Raises:
        SubmitError: the only model's own error.
        PartlySubmittedError: some of several failed.
    """
    made, failures = [], {}
    for name in names:
        try:
            made.append(send(name))
        except SubmitError as error:
            if len(names) == 1:
                raise
            failures[name] = str(error)
    if failures:
        raise PartlySubmittedError(made, failures)
    return made


def _open_round(current: Round | None, now: datetime, *, force: bool) -> tuple[Round, bool]:
    """The round to submit to, and whether it is late for it.

    Raises:
        SubmitError: no round is open, it has closed, or it is late and `force` is not given.
    """
    if current is None:
        raise SubmitError("no round is open; rounds open from Tuesday to Saturday at 12:00 UTC")
    if now < current.opens:
        raise SubmitError(f"round {current.number} opens at {current.opens:%Y-%m-%d %H:%M} UTC, not before")
    if current.closes is not None and now >= current.closes:
        raise SubmitError(
            f"round {current.number} closed at {current.closes:%Y-%m-%d %H:%M} UTC; a submission now would be queued "
            "for the next round with other ids: predict that round's live file instead"
        )
    late = now >= current.stakes_until
    if late and not force:
        raise SubmitError(
            f"round {current.number} took stakes until {current.stakes_until:%Y-%m-%d %H:%M} UTC; a submission now "
            "would be scored, but not staked on; --force sends it all the same"
        )
    return current, late


def _examine_predictions(client: Client, frame: pd.DataFrame, version: str, weights: Mapping[str, float]) -> Profile:
    """Check the predictions against the live file as it is now, and measure them.

    Raises:
        SubmitError: they are not for exactly its rows, or have values that cannot be submitted.
    """
    with tempfile.TemporaryDirectory(prefix="eravane-") as folder:
        features, live = Path(folder) / "features.json", Path(folder) / "live.parquet"
        for path in (features, live):
            download(client, f"{version}/{path.name}", path, check=partial(_check_file, path.name, features))
        ids = live_ids(live)
        validate_live_predictions(frame, ids)
        return profile_of(frame, live, ids, FeatureCatalog.load(features, sets=("all",)).groups, weights)


def _check_file(name: str, features: Path, path: Path) -> None:
    examine(path, name, features, None)


def _live_weights(run: Path) -> dict[str, float]:
    """The base models' weights in the live era; empty when the run did not note them."""
    try:
        noted = json.loads((run / "live.json").read_text(encoding="utf-8"))
        return {str(name): float(weight) for name, weight in noted["weights"].items()}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SubmitError(f"{run / 'live.json'} is damaged; run the live predictions again") from None


@dataclass(frozen=True)
class _Dispatch:
    """Predictions that are ready to go to a round."""

    client: Client
    run: Path
    frame: pd.DataFrame
    content: bytes
    profile: Profile
    round: Round
    late: bool
    now: Callable[[], datetime]
    dry_run: bool
    force: bool

    def to(self, name: str) -> Receipt:
        """Submit to one model, unless the round has these predictions from it already."""
        if not self.client.authorized:
            self._refuse_unless_forced(self._objections(name, None))
            return self._receipt(DRY_RUN, name, "", "")
        model = self._model(name)
        standing = self._standing(model)
        stored = None if standing is None else self._stored(standing)
        if standing is not None and stored is not None and self._same(stored) and not self.force:
            receipt = self._receipt(FOUND, name, model.id, standing.id)
            known = any(earlier.submission_id == standing.id for earlier in receipts(self.run, name))
            if not known and not self.dry_run:
                keep_receipt(self.run, receipt, self.content)
            return receipt
        overridden = self._refuse_unless_forced(self._objections(name, stored))
        if self.dry_run:
            return self._receipt(DRY_RUN, name, model.id, "", overridden)
        return self._send(model, overridden)

    def _model(self, name: str) -> Model:
        model = self.client.model(name)
        if model.pickle is not None:
            raise SubmitError(
                f"model {name!r} answers with its uploaded pickle {model.pickle!r} and takes no predictions; "
                "remove the pickle on the website, or submit to another model"
            )
        return model

    def _standing(self, model: Model) -> Submission | None:
        """The submission that counts for this round so far."""
        listed = self.client.submissions(model.id)
        valid = [s for s in listed if s.round == self.round.number and s.error is None]
        return valid[-1] if valid else None

    def _stored(self, standing: Submission) -> bytes | None:
        """The file of the standing submission; None when it cannot be read and need not be, by force."""
        try:
            return self.client.submitted_file(standing.id)
        except SubmitError as error:
            if self.force:
                return None
            raise SubmitError(
                f"the round has submission {standing.id}, and whether it is this one is unknown: {error}; "
                "--force sends again"
            ) from None

    def _same(self, stored: bytes) -> bool:
        """Whether a stored file holds these predictions, in any order of rows."""
        if stored == self.content:
            return True
        other = _parsed(stored)
        if other is None:
            return False
        ours, theirs = (frame.sort_values("id", ignore_index=True) for frame in (self.frame, other))
        return bool(ours.equals(theirs))

    def _objections(self, name: str, stored: bytes | None) -> list[str]:
        """Objections to sending: against this round's submission, and against the last receipt."""
        earlier = receipts(self.run, name)
        found = objections(self.profile, earlier[-1].profile) if earlier else []
        if stored is not None:
            return found + self._correlation_objections(stored, "this round's standing submission")
        if earlier:
            kept = predictions_of(self.run, earlier[-1])
            if kept.is_file():
                found += self._correlation_objections(kept.read_bytes(), f"round {earlier[-1].round}'s submission")
        return found

    def _correlation_objections(self, content: bytes, name: str) -> list[str]:
        other = _parsed(content)
        return [] if other is None else correlation_objections(self.frame, other, name)

    def _refuse_unless_forced(self, found: list[str]) -> tuple[str, ...]:
        if found and not self.force:
            raise SubmitError(f"held back: {'; '.join(found)}. Look into it; --force sends it all the same")
        return tuple(found)

    def _send(self, model: Model, overridden: tuple[str, ...]) -> Receipt:
        """Send the file as it lies in the run folder, make sure that it arrived, and keep its receipt.

        Raises:
            SubmitError: the round moved, the tournament put it into another round, or it did not arrive whole.
        """
        problem = ""
        for _ in range(TRIES):
            self._require_same_round()
            submission_id = self.client.submit(lambda: io.BytesIO(self.content), model.id)
            listed = self.client.submission(model.id, submission_id)
            problem = self._problem(listed)
            if not problem:
                return self._keep(model, listed, overridden)
        raise SubmitError(f"submission {submission_id} to {model.name!r} failed: {problem}; submit again")

    def _require_same_round(self) -> None:
        """Check that the round is still the one whose live file the predictions were held against.

        Raises:
            SubmitError: it is another one, or none is open.
        """
        now = self.client.current_round()
        if now is None or now.number != self.round.number:
            present = "no round is open any more" if now is None else f"round {now.number} is"
            raise SubmitError(
                f"round {self.round.number} was open when the predictions were checked, now {present}: nothing was "
                "sent; fetch the new live file, predict it and submit again"
            )

    def _keep(self, model: Model, listed: Submission, overridden: tuple[str, ...]) -> Receipt:
        """Keep the receipt of what the tournament lists, under the round that it states.

        Raises:
            SubmitError: that is another round, and the submission was not late.
        """
        receipt = dataclasses.replace(
            self._receipt(SENT, model.name, model.id, listed.id, overridden),
            round=listed.round,
            selected=listed.selected,
        )
        keep_receipt(self.run, receipt, self.content)
        if listed.round != self.round.number and not self.late:
            raise SubmitError(
                f"submission {listed.id} to {model.name!r} went to round {listed.round}, not to {self.round.number} "
                "(see its receipt); predict that round's live file and submit again"
            )
        return receipt

    def _problem(self, listed: Submission) -> str:
        """The fault of a submission that another try may correct; empty when nothing is wrong."""
        if listed.error is not None:
            return f"the tournament finds it invalid ({listed.error[:200]})"
        if not self._same(self.client.submitted_file(listed.id)):
            return "the tournament stored something else than was sent"
        return ""

    def _receipt(
        self, status: str, name: str, model_id: str, submission_id: str, overridden: tuple[str, ...] = ()
    ) -> Receipt:
        return Receipt(
            status=status,
            round=self.round.number,
            model=name,
            model_id=model_id,
            submission_id=submission_id,
            sha256=hashlib.sha256(self.content).hexdigest(),
            rows=len(self.frame),
            time=self.now().astimezone(UTC).isoformat(timespec="microseconds"),
            late=self.late,
            overridden=overridden,
            profile=self.profile,
        )


def _parsed(content: bytes) -> pd.DataFrame | None:
    """The predictions in a file; None when it is of another form, as a submission made elsewhere may be."""
    try:
        return parse_predictions(content, "the file")
    except SubmitError:
        return None
