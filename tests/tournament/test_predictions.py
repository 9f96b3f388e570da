"""Live predictions: what is refused, and that what is written reads back bit for bit."""

from __future__ import annotations

import bz2
import lzma
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerai_tools.submissions import validate_submission_numerai

from eravane.core.errors import SubmitError
from eravane.tournament.predictions import (
    read_live_predictions,
    validate_live_predictions,
    write_live_predictions,
)

IDS = [f"n{number:015x}" for number in range(40)]


def frame(**changes: object) -> pd.DataFrame:
    """A good submission for IDS, with columns replaced."""
    values = (np.arange(len(IDS)) + 0.5) / len(IDS)
    return pd.DataFrame({"id": IDS, "prediction": values}).assign(**changes)


def spoiled(position: int, value: float) -> pd.DataFrame:
    values = frame()["prediction"].to_numpy().copy()
    values[position] = value
    return frame(prediction=values)


def test_a_good_submission_passes_in_any_row_order() -> None:
    shuffled = frame().sample(frac=1.0, random_state=0)
    validate_live_predictions(shuffled, IDS)
    validate_submission_numerai(pd.Series(IDS), shuffled)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e-9, 1.0 + 1e-9, np.nan, np.inf, -np.inf])
def test_a_value_outside_the_open_interval_is_named(value: float) -> None:
    with pytest.raises(SubmitError, match=rf"1 are not, first {IDS[7]} = {value}"):
        validate_live_predictions(spoiled(7, value), IDS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (frame().rename(columns={"prediction": "score"}), "columns must be id, prediction; given: id, score"),
        (frame()[["prediction", "id"]], "given: prediction, id"),
        (frame().set_index("id"), "given: prediction"),
        (
            frame().iloc[:-4],
            rf"4 of 40 live ids have no prediction: {IDS[36]}, {IDS[37]}, {IDS[38]} and 1 more",
        ),
        (frame(id=[*IDS[:-1], IDS[0]]), f"repeated: {IDS[0]}"),
        (frame(id=[*IDS[:-1], None]), "1 rows have no id"),
        (pd.concat([frame(), pd.DataFrame({"id": ["nX"], "prediction": [0.5]})]), "not in the live file: nX"),
        (frame(prediction=0.25), "all 40 predictions are 0.25"),
        (frame(prediction=1), "floating point, not int64"),
        (
            frame(prediction=0.5 + 1e-12 * np.arange(40)),
            "numerai-tools refuses .* non-zero standard deviation",
        ),
    ],
)
def test_a_bad_submission_is_refused(bad: pd.DataFrame, message: str) -> None:
    with pytest.raises(SubmitError, match=message):
        validate_live_predictions(bad, IDS)


def test_the_live_ids_themselves_must_make_sense() -> None:
    with pytest.raises(SubmitError, match="no live ids"):
        validate_live_predictions(frame(), [])
    with pytest.raises(SubmitError, match=f"repeats ids: {IDS[0]}"):
        validate_live_predictions(frame(), [*IDS, IDS[0]])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True), min_size=2, max_size=30, unique=True))
def test_written_predictions_read_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    if np.isclose(0.0, np.std(values, ddof=1)):
        return
    path = tmp_path_factory.mktemp("run") / "live_predictions.csv"
    ids = IDS[: len(values)]
    write_live_predictions(path, pd.DataFrame({"id": ids, "prediction": values}), ids)
    read, content = read_live_predictions(path)
    assert content == path.read_bytes()
    assert read["id"].tolist() == ids
    assert read["prediction"].tolist() == values


def test_a_refused_submission_leaves_the_earlier_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "live_predictions.csv"
    write_live_predictions(path, frame(), IDS)
    before = path.read_bytes()
    with pytest.raises(SubmitError):
        write_live_predictions(path, spoiled(0, 2.0), IDS)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["live_predictions.csv"]


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SubmitError, match="does not exist"):
        read_live_predictions(tmp_path / "live_predictions.csv")
    broken = tmp_path / "broken.csv"
    cases = {
        b"id,prediction\nn0,high\n": "row 1, id n0: the prediction 'high' is no plain decimal",
        b"id,prediction\nn0,0.25\nn1,0.1_5\n": "row 2, id n1: the prediction '0.1_5' is no plain decimal",
        "id,prediction\nn0,0.\u0663\n".encode(): "no plain decimal",
        b"id,prediction\nn0, 0.5\n": "no plain decimal",
        b"id;prediction\nn0;0,5\n": "no CSV of id, prediction; it is separated by semicolons",
        "id,prediction\nn0,0.5\n".encode("utf-16"): "is UTF-16; save it as plain CSV",
        "id,prediction\nn0,0.5\n".encode("utf-32"): "is UTF-16; save it as plain CSV",
        "id,prediction\nn0,0.5\n".encode("utf-16-be"): "is UTF-16, or no text; save it as plain CSV",
        b"id,prediction\nn0\0,0.5\n": "no text",
        b"\x1f\x8b\x08\x00": "is compressed",
        bz2.compress(b"id,prediction\n"): "is compressed",
        lzma.compress(b"id,prediction\n"): "is compressed",
        b"": "no CSV of id, prediction",
        b"id,other\nn0,0.5\n": "no CSV of id, prediction; its first line is 'id,other'",
    }
    for content, words in cases.items():
        broken.write_bytes(content)
        with pytest.raises(SubmitError, match=re.escape(words)):
            read_live_predictions(broken)


def test_a_pipe_a_device_and_a_folder_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "live_predictions.csv"
    os.mkfifo(path)
    with pytest.raises(SubmitError, match="cannot be read: Is a pipe or a device; write its content to a file"):
        read_live_predictions(path)
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(SubmitError, match="Is a pipe or a device"):
        read_live_predictions(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(SubmitError, match="cannot be read: Is a directory"):
        read_live_predictions(path)


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfid,prediction\r\nn0,.25\r\nn1,7.5e-1\r\n", b"id,prediction\nn0,0.25\nn1,0.75"]
)
def test_what_is_sent_is_what_was_checked(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "live_predictions.csv"
    path.write_bytes(content)
    frame, sent = read_live_predictions(path)
    assert frame["prediction"].tolist() == [0.25, 0.75]
    assert sent == b"id,prediction\nn0,0.25\nn1,0.75\n"
