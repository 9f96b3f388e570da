"""Handing a model over for hosting: image by content, validation awaited, assignment made sure of, nothing twice."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from eravane.core.errors import SubmitError
from eravane.tournament.client import Client
from eravane.tournament.images import choose_image, python_minor
from eravane.tournament.transport import ApiError
from eravane.tournament.upload import upload
from tests.tournament.double import Double
from tests.tournament.made import FakeTime

CONTENT = pickle.dumps({"model": [1, 2, 3]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.pkl"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def model_id(double: Double) -> str:
    return double.add_model("alpha")


@pytest.mark.parametrize(
    ("name", "minor"),
    [
        ("Python 3.14 (beta)", 14),
        ("Python 3.12", 12),
        ("py3.12", 12),
        ("python:3.12-slim", 12),
        ("numerai_predict_py_3_13:a12bc34", 13),
        ("ghcr.io/numerai/numerai-inference:py3.11", 11),
        ("py314-pandas3", 14),
        ("cpython-313", 13),
        ("Python 13.12", None),
        ("R 4.3.2", None),
        ("xgboost 3.0", None),
    ],
)
def test_the_python_of_an_image_is_read_in_any_form(name: str, minor: int | None) -> None:
    assert python_minor(name) == (0 if name == "xgboost 3.0" else minor)


def test_the_image_is_chosen_by_what_it_holds() -> None:
    images = {"py3.12 (deprecated)": "a", "Python 3.12 beta": "b", "python:3.12-slim": "c", "Python 3.13": "d"}
    assert choose_image(images, "3.12").id == "c"
    assert choose_image({"Python 3.14 (beta)": "x", "Python 3.12": "y"}, "3.14").id == "x"
    with pytest.raises(SubmitError, match=r"no container for Python 3\.12; it has py3\.12 \(deprecated\)"):
        choose_image({"py3.12 (deprecated)": "a"}, "3.12")
    with pytest.raises(SubmitError, match=r"Python 3\.10 \(NumPy 1\.26\.4\)"):
        choose_image({"Python 3.10": "a"}, "3.10")
    with pytest.raises(SubmitError, match=r"R 4\.3 \(no Python in its name\)"):
        choose_image({"R 4.3": "a"}, "3.12")


def test_it_is_validated_and_assigned(
    double: Double, model_id: str, client: Client, file: Path, fake_time: FakeTime
) -> None:
    seen: list[str] = []
    done = upload(file, "alpha", python="3.12", assign=True, client=client, progress=seen.append)
    assert (done.status, done.image, done.log) == ("assigned", "Python 3.12", ("loaded", "predicted"))
    assert double.assigned == {model_id: "pickle-1"}
    assert seen == [
        "created upload pickle-1",
        "validation: pending",
        "validation: running",
        "validation: validated",
        "assigned to alpha",
    ]
    assert sum(fake_time.sleeps) == 20.0
    assert double.storage[double.pickles[0]["filename"]] == CONTENT


def test_without_waiting_it_is_reported_as_created_alone(
    double: Double, model_id: str, client: Client, file: Path
) -> None:
    assert upload(file, "alpha", python="3.12", client=client).status == "created"
    assert double.count("computePickles") == 0
    assert double.assigned == {}


def test_a_failed_validation_shows_its_log_and_assigns_nothing(
    double: Double, model_id: str, client: Client, file: Path
) -> None:
    double.validation = ["pending", "failed"]
    double.validation_log = ("Traceback", "ModuleNotFoundError: No module named 'mine'")
    with pytest.raises(SubmitError, match=r"could not run upload pickle-1 \(failed\)(.|\n)*No module named 'mine'"):
        upload(file, "alpha", python="3.12", assign=True, client=client)
    assert double.assigned == {}


def test_a_validation_that_finds_no_round_counts(double: Double, model_id: str, client: Client, file: Path) -> None:
    double.validation, double.validation_log = ["failed"], ("predicted", "Submission failed: No open round")
    assert upload(file, "alpha", python="3.12", assign=True, client=client).status == "assigned"


def test_a_validation_that_never_ends_is_given_up(double: Double, model_id: str, client: Client, file: Path) -> None:
    double.validation = ["running"]
    with pytest.raises(ApiError, match="the validation of upload pickle-1 failed: the validation is running"):
        upload(file, "alpha", python="3.12", wait=True, wait_minutes=100 / 60, client=client)
    assert double.assigned == {}


def test_a_lost_answer_does_not_create_twice(double: Double, model_id: str, client: Client, file: Path) -> None:
    double.fail("createComputePickleUpload", "cut")
    assert upload(file, "alpha", python="3.12", client=client).upload_id == "pickle-1"
    assert len(double.pickles) == 1


def test_what_is_no_pickle_is_not_sent(double: Double, model_id: str, client: Client, tmp_path: Path) -> None:
    for name, content in (("text.pkl", b"print('hello')\n"), ("cut.pkl", CONTENT[:-3]), ("model.txt", CONTENT)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SubmitError, match=r"is no pickle|is no model file"):
            upload(tmp_path / name, "alpha", python="3.12", client=client)
    assert double.pickles == []
