"""Live predictions: what becomes a submission, checked before it is written and before it is sent."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numerai_tools.submissions import validate_submission_numerai

from eravane.core.errors import SubmitError
from eravane.core.files import read_file, write_atomically

# Other scripts' digits, underscores and blanks pass Python's float() but are no numbers to the tournament.
DECIMAL = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|NaN|-?inf"
# How files begin that gzip, zip, bzip2, xz and zstd packed.
PACKED = (b"\x1f\x8b", b"PK", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
COLUMNS = ("id", "prediction")
FILE_NAME = "live_predictions.csv"


def _named(ids: Iterable[str]) -> str:
    """The first three ids of a selection, for an error message."""
    shown = list(ids)
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _check_ids(ids: pd.Series, live_ids: pd.Series) -> None:
    if ids.isna().any():
        raise SubmitError(f"{int(ids.isna().sum())} rows have no id; every row needs the id of a live row")
    repeated = ids[ids.duplicated()]
    if len(repeated):
        raise SubmitError(f"ids must occur once; repeated: {_named(repeated)}")
    missing = live_ids[~live_ids.isin(ids)]
    if len(missing):
        raise SubmitError(
            f"{len(missing)} of {len(live_ids)} live ids have no prediction: {_named(missing)}; "
            "predict the live file of the current round"
        )
    foreign = ids[~ids.isin(live_ids)]
    if len(foreign):
        raise SubmitError(
            f"{len(foreign)} ids are not in the live file: {_named(foreign)}; "
            "predict the live file of the current round"
        )


def _check_values(ids: pd.Series, values: pd.Series) -> None:
    if not pd.api.types.is_float_dtype(values.dtype):
        raise SubmitError(f"predictions must be floating point, not {values.dtype}")
    outside = ~(values.gt(0.0) & values.lt(1.0))
    if outside.any():
        first = values[outside].iloc[0]
        raise SubmitError(
            f"predictions must be finite and strictly between 0 and 1; {int(outside.sum())} are not, "
            f"first {ids[outside].iloc[0]} = {first}"
        )
    if len(values) == 1:
        raise SubmitError("there is one live row, and predictions are ranks among rows: fetch the whole live file")
    if values.min() == values.max():
        raise SubmitError(f"all {len(values)} predictions are {values.iloc[0]}; a constant cannot be scored")


def validate_live_predictions(frame: pd.DataFrame, live_ids: Sequence[str] | pd.Index | pd.Series) -> None:
    """Check that a frame is a submission for exactly these live rows.

    `frame` has the columns `id` and `prediction` (floating point), in this order, one row per live id
    in any order. The values must be finite, strictly inside (0, 1) and not constant. What is stricter
    than the tournament's own rules is checked first, then `numerai_tools.submissions` has the last word.

    Raises:
        SubmitError: naming the first offending ids or value.
    """
    if tuple(frame.columns) != COLUMNS:
        raise SubmitError(f"columns must be {', '.join(COLUMNS)}; given: {', '.join(map(str, frame.columns))}")
    universe = pd.Series(np.asarray(live_ids, dtype=object)).astype(str)
    if not len(universe):
        raise SubmitError("there are no live ids; fetch the live file of the current round")
    if universe.duplicated().any():
        raise SubmitError(f"the live file repeats ids: {_named(universe[universe.duplicated()])}")
    _check_ids(frame["id"], universe)
    _check_values(frame["id"], frame["prediction"])
    try:
        validate_submission_numerai(universe, frame)
    except AssertionError as error:
        raise SubmitError(f"numerai-tools refuses the predictions: {error}") from None


def write_live_predictions(path: Path, frame: pd.DataFrame, live_ids: Sequence[str] | pd.Index | pd.Series) -> Path:
    """Validate the predictions, then write them as CSV under their final name in one step; returns the path.

    The ids are written as they are and the values so that reading them returns the same float64.

    Raises:
        SubmitError: as `validate_live_predictions`; nothing is written then.
    """
    validate_live_predictions(frame, live_ids)
    write_atomically(path, frame.to_csv(index=False, lineterminator="\n").encode())
    return path


def read_live_predictions(path: Path) -> tuple[pd.DataFrame, bytes]:
    """Read a predictions CSV; returns `id` as text and `prediction` as float64, and a CSV of just these to be sent.

    Raises:
        SubmitError: when the file is missing or is not a CSV of these two columns.
    """
    try:
        content = read_file(path)
    except FileNotFoundError:
        raise SubmitError(f"{path} does not exist; `eravane run` writes it") from None
    except OSError as error:
        raise SubmitError(f"{path} cannot be read: {error.strerror}") from None
    frame = parse_predictions(content, str(path))
    return frame, frame.to_csv(index=False, lineterminator="\n").encode()


def parse_predictions(content: bytes, name: str) -> pd.DataFrame:
    """The predictions in a CSV; `name` is its origin in error messages.

    Raises:
        SubmitError: when it is not a CSV of the two columns.
    """
    if b"\0" in content or content.startswith(PACKED):
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        kind = "UTF-16" if wide else "compressed" if content.startswith(PACKED) else "UTF-16, or no text"
        raise SubmitError(f"{name} is {kind}; save it as plain CSV in UTF-8")
    try:
        text = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig")
        ids, numbers = text["id"], text["prediction"]
    except (KeyError, ValueError) as error:
        head = content[:200].split(b"\n")[0].decode("utf-8", "replace").strip()
        cause = "; it is separated by semicolons" if ";" in head else ""
        raise SubmitError(
            f"{name} is no CSV of {', '.join(COLUMNS)}{cause}; its first line is {head[:60]!r} ({error})"
        ) from None
    unfit = ~numbers.str.fullmatch(DECIMAL)
    if unfit.any():
        row = int(unfit.to_numpy().argmax())
        raise SubmitError(
            f"{name}, row {row + 1}, id {ids.iloc[row]}: the prediction {numbers.iloc[row]!r} is no plain decimal such "
            "as 0.25"
        )
    # NumPy parses decimals to the nearest float64; the default parser of pandas 2 may be one unit off.
    return text.assign(prediction=numbers.to_numpy(dtype=object).astype(np.float64))
