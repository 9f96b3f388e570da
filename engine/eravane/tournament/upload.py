"""Uploading a model for hosted prediction: the tournament then runs it by itself every round."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eravane.core.errors import SubmitError
from eravane.tournament import connect
from eravane.tournament.fetch import VERSION
from eravane.tournament.receipts import check_model_name

if TYPE_CHECKING:
    from eravane.tournament.client import Client

PYTHON = f"3.{sys.version_info.minor}"


@dataclass(frozen=True)
class Uploaded:
    """A model that was handed over: the upload's id, and the dataset and Python that it will run with."""

    upload_id: str
    model: str
    data_version: str
    image: str


def upload(
    pickle: Path,
    model_name: str,
    *,
    data_version: str = VERSION,
    python: str = PYTHON,
    client: Client | None = None,
) -> Uploaded:
    """Send an exported model to a model slot. The slot takes no predictions by `submit` while it has one.

    The file is sent as it is; it is never opened here.

    Args:
        pickle: file that `eravane export` wrote, ending in `.pkl`.
        model_name: model slot of the account.
        data_version: dataset whose live file the model is given.
        python: Python minor that the pickle was made with, "3.12".
        client: the tournament's API; None connects with the credentials at hand.

    Raises:
        SubmitError: the file, the model, the dataset version or a container for that Python does not exist.
        ApiError: the tournament refuses, or does not answer before the deadline.
    """
    check_model_name(model_name)
    if pickle.suffix != ".pkl" or not pickle.is_file() or pickle.stat().st_size == 0:
        raise SubmitError(f"{pickle} is no model file; give the .pkl that `eravane export` wrote")
    client = client or connect()
    model = client.model(model_name)
    versions, images = client.hosting()
    if data_version not in versions:
        raise SubmitError(f"hosted models cannot ask for dataset {data_version!r}; they can for {', '.join(versions)}")
    image = next((name for name in images if python in name.split()), None)
    if image is None:
        raise SubmitError(f"the tournament has no container for Python {python}; it has {', '.join(images)}")
    upload_id = client.upload_pickle(
        lambda: pickle.open("rb"), pickle.name, model.id, versions[data_version], images[image]
    )
    return Uploaded(upload_id, model_name, data_version, image)
