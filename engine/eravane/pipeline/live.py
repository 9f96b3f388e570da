"""The live predictions of a run as files: the submission, and which models made it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from eravane.calendar.eras import EraFrame
from eravane.runstate.journal import EraRecord
from eravane.runstate.runfolder import RunFolder
from eravane.tournament.predictions import FILE_NAME, write_live_predictions

WEIGHTS = "live.json"


def write_live(folder: RunFolder, record: EraRecord, live: EraFrame, model_ids: Sequence[str]) -> None:
    """Write `live_predictions.csv` and `live.json`.

    Args:
        folder: the run folder.
        record: the live era as the loop predicted it.
        live: the live rows, in the order of the record.
        model_ids: the base models, in the order of the record.

    Raises:
        SubmitError: the predictions are not a submission for these rows.
    """
    frame = pd.DataFrame({"id": live.ids.to_pylist(), "prediction": record.prediction_N})
    write_live_predictions(folder.path / FILE_NAME, frame, frame["id"])
    weights = {name: float(weight) for name, weight in zip(model_ids, record.weights_M, strict=True)}
    folder.write_json(WEIGHTS, {"era": record.era, "rows": len(frame), "weights": weights})
