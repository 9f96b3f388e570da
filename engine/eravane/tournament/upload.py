"""Uploading a model for hosted prediction: checked, created once, validated, and assigned to its slot."""

from __future__ import annotations

import dataclasses
import pickletools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eravane.core.errors import SubmitError
from eravane.core.files import Place
from eravane.core.settings import require_between
from eravane.tournament import LONGEST_S, connect
from eravane.tournament.fetch import VERSION
from eravane.tournament.images import choose_image
from eravane.tournament.receipts import check_model_name
from eravane.tournament.transport import ApiError, TransientError

if TYPE_CHECKING:
    from eravane.tournament.answers import HostedFile
    from eravane.tournament.client import Client

PYTHON = f"3.{sys.version_info.minor}"
EVERY_S = 10.0  # between two looks at a validation
VALID, FAILED = ("validated", "succeeded", "success", "passed"), ("failed", "error", "errored", "timeout", "timed_out")
# A file that predicted well but had no round to submit to ends as failed; the tournament's docs count it as valid.
NO_ROUND = ("no open round", "round not open")
LOG_LINES = 20


@dataclass(frozen=True)
class Uploaded:
    """A model that was handed over.

    Attributes:
        upload_id: the tournament's id.
        model: the model slot.
        data_version, image: what it runs with.
        status: "created", "validated" or "assigned".
        log: the newest lines of the validation's log, where it was waited for.
    """

    upload_id: str
    model: str
    data_version: str
    image: str
    status: str
    log: tuple[str, ...] = ()


def upload(
    file: Place,
    model: str,
    *,
    data_version: str = VERSION,
    python: str = PYTHON,
    wait: bool = False,
    assign: bool = False,
    wait_minutes: float = 30.0,
    progress: Callable[[str], None] | None = None,
    client: Client | None = None,
) -> Uploaded:
    """Send an exported model to a model slot. The slot takes no predictions by `submit` once it is assigned.

    The file is sent as it is; it is never loaded here.

    Args:
        file: what `eravane export` wrote, ending in `.pkl`.
        model: model slot of the account.
        data_version: dataset whose live file the model is given.
        python: Python minor that the pickle was made with, "3.12".
        wait: wait until the tournament has validated it.
        assign: wait, then let the slot predict with it.
        wait_minutes: minutes after which waiting ends; a validation, in which the container predicts, takes a few.
        progress: called with every state that is seen.
        client: the tournament's API; None connects with the credentials at hand.

    Raises:
        SubmitError: the file, the model, the dataset version or a container for that Python does not exist, or the
            validation failed; the message holds the end of its log.
        ApiError: the tournament refuses, or does not answer before the deadline.
    """
    pickle, progress = Path(file), progress or (lambda text: None)
    check_model_name(model)
    require_between("wait_minutes", wait_minutes, 0, LONGEST_S / 60)
    _check_pickle(pickle)
    client = client or connect()
    model_id = client.model(model).id
    versions, images = client.hosting()
    if data_version not in versions:
        raise SubmitError(f"hosted models cannot ask for dataset {data_version!r}; they can for {', '.join(versions)}")
    image = choose_image(images, python)
    upload_id = client.upload_pickle(lambda: pickle.open("rb"), pickle.name, model_id, versions[data_version], image.id)
    made = Uploaded(upload_id, model, data_version, image.name, "created")
    progress(f"created upload {upload_id}")
    if not (wait or assign):
        return made
    log = _await_validation(client, model_id, upload_id, 60 * wait_minutes, progress)
    made = dataclasses.replace(made, status="validated", log=log)
    if assign:
        client.assign(model_id, upload_id)
        made = dataclasses.replace(made, status="assigned")
        progress(f"assigned to {model}")
    return made


def _check_pickle(path: Path) -> None:
    """Check that a file is a whole pickle, by its opcodes; nothing in it is executed.

    Raises:
        SubmitError: it is not.
    """
    if path.suffix != ".pkl" or not path.is_file() or path.stat().st_size == 0:
        raise SubmitError(f"{path} is no model file; give the .pkl that `eravane export` wrote")
    try:
        with path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass
    except Exception as error:  # genops raises errors of many kinds
        raise SubmitError(f"{path} is no pickle ({error}); give the .pkl that `eravane export` wrote") from None


def _await_validation(
    client: Client, model_id: str, upload_id: str, wait_s: float, progress: Callable[[str], None]
) -> tuple[str, ...]:
    """Wait until the upload is validated; returns the end of its log.

    Raises:
        SubmitError: the validation failed, with the end of its log.
        ApiError: it is not done in time; the upload stays with the tournament.
    """
    seen = ""

    def attempt() -> HostedFile:
        nonlocal seen
        found = client.hosted_file(model_id, upload_id)
        if found.validation != seen:
            seen = found.validation
            progress(f"validation: {seen or 'waiting'}")
        if found.validation.lower() not in (*VALID, *FAILED):
            raise TransientError(f"the validation is {found.validation or 'waiting'}", EVERY_S)
        return found

    patience = dataclasses.replace(client.patience, deadline_s=wait_s, longest_wait_s=EVERY_S, first_wait_s=EVERY_S)
    done = patience.insist(f"the validation of upload {upload_id}", attempt)
    try:
        log = client.hosted_log(upload_id)[-LOG_LINES:]
    except ApiError as error:
        log = (f"the log cannot be had: {error}",)
    if done.validation.lower() in VALID or any(words in line.lower() for line in log for words in NO_ROUND):
        return log
    shown = "\n  ".join(log) or "the tournament keeps no log of it"
    raise SubmitError(
        f"the tournament could not run upload {upload_id} ({done.validation}); nothing was assigned. Its log ends:"
        f"\n  {shown}"
    )
