"""The tournament's API: numerapi with its silent failures closed, and its answers given a shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import IO, Any, TypeVar

import requests

from eravane.tournament.answers import (
    HostedFile,
    Model,
    Round,
    Submission,
    hosted_of,
    model_of,
    round_of,
    submission_of,
)
from eravane.tournament.api import CLASSIC, GuardedApi
from eravane.tournament.credentials import Credentials
from eravane.tournament.transport import ApiError, Patience, TransientError, Transport

T = TypeVar("T")

_ROUND = """query($tournament: Int!) {
    rounds(tournament: $tournament number: 0) { number openTime closeTime closeStakingTime }
}"""
_DATASET = """query($filename: String! $tournament: Int) {
    dataset(filename: $filename tournament: $tournament)
}"""
_MODELS = "query { account { models { id name tournament computePickleUpload { filename } } } }"
_SUBMISSIONS = """query($modelId: ID) {
    submissions(modelId: $modelId) { id filename insertedAt selected errorInfo round { number tournament } }
}"""
_DOWNLOAD = "query($id: ID!) { submissionDownloadAuth(id: $id) { url } }"
_PICKLE_AUTH = """query($filename: String! $modelId: ID) {
    computePickleUploadAuth(filename: $filename modelId: $modelId) { filename url }
}"""
_UPLOAD_AUTH = """query($filename: String! $tournament: Int! $modelId: String) {
    %s(filename: $filename tournament: $tournament modelId: $modelId) { filename url }
}"""
_CREATE_SUBMISSION = """mutation($filename: String! $tournament: Int! $modelId: String $triggerId: String) {
    create_submission(filename: $filename tournament: $tournament modelId: $modelId
                      triggerId: $triggerId source: "numerapi") { id }
}"""
_CREATE_DIAGNOSTICS = """mutation($filename: String! $tournament: Int! $modelId: String) {
    createDiagnostics(filename: $filename tournament: $tournament modelId: $modelId) { id }
}"""
_CREATE_PICKLE = """mutation($filename: String! $tournament: Int! $modelId: String
                             $dataVersionId: String $dockerImageId: String) {
    createComputePickleUpload(filename: $filename tournament: $tournament modelId: $modelId
                              dataVersionId: $dataVersionId dockerImageId: $dockerImageId) { id }
}"""

_PICKLES = """query($id: ID, $modelId: ID, $unassigned: Boolean!) {
    computePickles(id: $id, modelId: $modelId, unassigned: $unassigned) {
        id filename modelId assignedModelSlots validationStatus
    }
}"""
_PICKLE_LOG = "query($pickleId: ID!) { diagnosticsTriggerLogs(pickleId: $pickleId) { timestamp message } }"
_ASSIGN = """mutation($modelId: String, $pickleId: ID) {
    assignPickleToModel(modelId: $modelId, pickleId: $pickleId)
}"""


class Client:
    """The calls eravane makes, each retried within a deadline and checked for what came back.

    Args:
        credentials: the API key; None allows what is public: rounds, datasets and scores.
        patience: how long to wait, and for what.

    Every method raises `ApiError` when the tournament refuses, stays silent, or answers in another shape.
    """

    def __init__(self, credentials: Credentials | None = None, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.authorized = credentials is not None
        self._transport = Transport(self.patience)
        self._api = GuardedApi(credentials, self._transport)

    def __repr__(self) -> str:
        return f"Client(authorized={self.authorized})"

    def datasets(self) -> list[str]:
        """Names of the files that can be fetched, as the tournament gives them."""
        return self.shaped("listDatasets", lambda: list(map(str, _listed(self._api.list_datasets()))))

    def dataset_address(self, name: str) -> str:
        """A signed address of a file of the current round."""
        return str(self._query(_DATASET, {"filename": name, "tournament": CLASSIC}, "dataset", authorization=False))

    def current_round(self) -> Round | None:
        """The round that is open, or was last; None between rounds."""
        try:
            found = self._query(_ROUND, {"tournament": CLASSIC}, "rounds", authorization=False)
        except ApiError as error:
            # Between rounds the API has no round 0 and returns an error.
            if "round not open" in str(error).lower():
                return None
            raise
        return self.shaped("rounds", lambda: round_of(found[0])) if found and found[0] is not None else None

    def unresolved_rounds(self) -> list[dict[str, Any]]:
        """Rounds that are open or resolving, newest first, with numerapi's fields."""

        def ordered() -> list[dict[str, Any]]:
            listed = [*self._api.list_rounds(status="open"), *self._api.list_rounds(status="resolving")]
            return sorted(listed, key=lambda item: -int(item["number"]))

        return self.shaped("rounds", ordered)

    def models(self) -> dict[str, Model]:
        """The account's model slots by name."""
        account = self._query(_MODELS, {}, "account")

        def classic() -> dict[str, Model]:
            found = [model_of(item) for item in account["models"] if item["tournament"] == CLASSIC]
            return {model.name: model for model in found}

        return self.shaped("account", classic)

    def model(self, name: str) -> Model:
        """A model slot of the account, by name."""
        models = self.models()
        if name not in models:
            raise ApiError(f"the account has no model {name!r}; it has {', '.join(sorted(models)) or 'none'}")
        return models[name]

    def public_model_id(self, name: str) -> str:
        """The id of any model of the tournament, by its public name."""
        profile = self.shaped("v3UserProfile", lambda: self._api.public_user_profile(name))
        if profile is None:
            raise ApiError(f"the tournament has no model {name!r}")
        return self.shaped("v3UserProfile", lambda: str(profile["id"]))

    def submissions(self, model_id: str) -> list[Submission]:
        """Submissions of a model, oldest first."""
        listed = self._query(_SUBMISSIONS, {"modelId": model_id}, "submissions")
        read = self.shaped("submissions", lambda: [submission_of(item) for item in listed if item["round"]])
        return sorted(read, key=lambda submission: submission.inserted_at)

    def submission(self, model_id: str, submission_id: str) -> Submission:
        """One submission of a model; one that is not listed yet is looked for until the deadline."""

        def attempt() -> Submission:
            found = [s for s in self.submissions(model_id) if s.id == submission_id]
            if not found:
                raise TransientError("it is not listed")
            return found[0]

        return self.patience.insist(f"finding submission {submission_id}", attempt)

    def submitted_file(self, submission_id: str) -> bytes:
        """The file of a submission, as stored.

        A file that cannot be had yet is asked for again until the deadline.
        """

        def attempt() -> bytes:
            granted = self._query(_DOWNLOAD, {"id": submission_id}, "submissionDownloadAuth")
            address = self.shaped("submissionDownloadAuth", lambda: str(granted["url"]))
            with self.read(address, {}) as response:
                if response.status_code != 200:
                    raise TransientError(f"the storage answered HTTP {response.status_code}")
                return self._transport.body(response)

        return self.patience.insist("reading the submission back", attempt)

    def chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body of an answer that was opened by `read`, as it arrives.

        Raises:
            TransientError: a lost or silent connection, or a body that trickles.
        """
        return self._transport.chunks(response)

    def read(self, address: str, headers: Mapping[str, str]) -> AbstractContextManager[requests.Response]:
        """Open a signed address; see `Transport.get`."""
        return self._transport.get(address, headers)

    def submit(self, open_file: Callable[[], IO[bytes]], model_id: str) -> str:
        """Send predictions for the current round; returns the submission id.

        When the answer to the last step is lost, the list of submissions shows whether it was carried out;
        it is repeated only if not.
        """
        known = {submission.id for submission in self.submissions(model_id)}

        def already() -> str | None:
            new = [s.id for s in self.submissions(model_id) if s.id not in known]
            return new[-1] if new else None

        compute_id = os.environ.get("NUMERAI_COMPUTE_ID")
        headers = {"x_compute_id": compute_id} if compute_id else {}
        grant = self._grant("submission_upload_auth", "predictions.csv", model_id)
        stored = self._store(grant, "predictions.csv", open_file, headers)
        variables = {
            "filename": stored,
            "tournament": CLASSIC,
            "modelId": model_id,
            "triggerId": os.environ.get("TRIGGER_ID"),
        }
        return self._create("create_submission", _CREATE_SUBMISSION, variables, already)

    def start_diagnostics(self, open_file: Callable[[], IO[bytes]], model_id: str) -> str:
        """Send validation predictions; returns the id of the diagnostics run."""
        grant = self._grant("diagnosticsUploadAuth", "validation.csv", model_id)
        stored = self._store(grant, "validation.csv", open_file)
        variables = {"filename": stored, "tournament": CLASSIC, "modelId": model_id}
        return self._create("createDiagnostics", _CREATE_DIAGNOSTICS, variables)

    def diagnostics(self, model_id: str, run_id: str) -> dict[str, Any]:
        """One diagnostics run, finished or not, with numerapi's fields."""

        def only() -> dict[str, Any]:
            found = self._api.diagnostics(model_id, run_id)
            run = found[0] if isinstance(found, list) else found
            return dict(run)

        return self.shaped("diagnostics", only)

    def upload_pickle(
        self, open_file: Callable[[], IO[bytes]], name: str, model_id: str, data_id: str, image_id: str
    ) -> str:
        """Send a model for hosted prediction; returns the id of the upload."""

        def grant() -> Any:
            return self._query(_PICKLE_AUTH, {"filename": name, "modelId": model_id}, "computePickleUploadAuth")

        stored = self._store(grant, name, open_file)
        variables = {
            "filename": stored,
            "tournament": CLASSIC,
            "modelId": model_id,
            "dataVersionId": data_id,
            "dockerImageId": image_id,
        }

        def already() -> str | None:
            listed = self._query(_PICKLES, {"id": None, "modelId": model_id, "unassigned": True}, "computePickles")
            named = self.shaped(
                "computePickles", lambda: [str(item["id"]) for item in listed or [] if item["filename"] == stored]
            )
            return named[0] if named else None

        return self._create("createComputePickleUpload", _CREATE_PICKLE, variables, already)

    def hosting(self) -> tuple[dict[str, str], dict[str, str]]:
        """Name -> id of the data versions and of the container images that a hosted model can ask for."""
        versions = self.shaped("computePickleDataVersions", self._api.model_upload_data_versions)
        images = self.shaped("computePickleDockerImages", self._api.model_upload_docker_images)
        return _named_ids(versions), _named_ids(images)

    def hosted_file(self, model_id: str, upload_id: str) -> HostedFile:
        """An uploaded model file; one that is not listed yet is looked for until the deadline."""

        def attempt() -> HostedFile:
            variables = {"id": upload_id, "modelId": model_id, "unassigned": True}
            listed = self._query(_PICKLES, variables, "computePickles")
            found = self.shaped("computePickles", lambda: [hosted_of(item) for item in listed or []])
            named = [item for item in found if item.id == upload_id]
            if not named:
                raise TransientError("it is not listed")
            return named[0]

        return self.patience.insist(f"finding upload {upload_id}", attempt)

    def hosted_log(self, upload_id: str) -> tuple[str, ...]:
        """Lines that an uploaded model printed while it was validated, oldest first."""
        lines = self._query(_PICKLE_LOG, {"pickleId": upload_id}, "diagnosticsTriggerLogs")
        return self.shaped("diagnosticsTriggerLogs", lambda: tuple(str(line["message"]) for line in lines or []))

    def assign(self, model_id: str, upload_id: str) -> None:
        """Let a model slot predict with an uploaded file, and make sure that it does.

        Raises:
            ApiError: the slot does not name the file afterwards.
        """
        variables = {"modelId": model_id, "pickleId": upload_id}

        def attempt() -> None:
            self._api.ask_once(_ASSIGN, variables, authorization=True)

        self.patience.insist("assignPickleToModel", attempt)
        if model_id not in self.hosted_file(model_id, upload_id).slots:
            raise ApiError(f"upload {upload_id} is valid, but the tournament did not assign it; do so on the website")

    def scores(self, model_id: str) -> list[dict[str, Any]]:
        """Every score of a model, with numerapi's fields."""
        return list(self.shaped("submissionScores", lambda: self._api.submission_scores(model_id)))

    def _grant(self, endpoint: str, filename: str, model_id: str) -> Callable[[], Any]:
        variables = {"filename": filename, "tournament": CLASSIC, "modelId": model_id}
        return lambda: self._query(_UPLOAD_AUTH % endpoint, variables, endpoint)

    def _store(
        self,
        grant: Callable[[], Any],
        name: str,
        open_file: Callable[[], IO[bytes]],
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Ask for a signed address, store the file there, and return the name that the tournament gave it."""

        def attempt() -> str:
            granted = grant()
            address, stored = self.shaped("upload", lambda: (str(granted["url"]), str(granted["filename"])))
            with open_file() as file:
                self._transport.put(address, file, headers or {})
            return stored

        return self.patience.insist(f"storing {name}", attempt)

    def _create(
        self,
        field: str,
        query: str,
        variables: Mapping[str, object],
        already: Callable[[], str | None] = lambda: None,
    ) -> str:
        def attempt() -> str:
            try:
                answer = self._api.ask_once(query, variables, authorization=True)
            except TransientError:
                made = already()
                if made is None:
                    raise
                return made
            return self.shaped(field, lambda: str(answer["data"][field]["id"]))

        return self.patience.insist(field, attempt)

    def _query(self, query: str, variables: Mapping[str, object], field: str, *, authorization: bool = True) -> Any:
        answer = self._api.raw_query(query, variables, authorization=authorization)
        return self.shaped(field, lambda: answer["data"][field])

    def shaped(self, what: str, read: Callable[[], T]) -> T:
        """Read something from an answer; when it is missing, an error names the answer of another shape."""
        try:
            return read()
        except (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            kind = type(error).__name__  # an ArithmeticError: int(Infinity), which JSON's reader takes
        raise ApiError(f"{what}: the tournament's answer has an unexpected shape ({kind})")


def _listed(answer: object) -> list[Any]:
    """The answer, which must be a list: a text or a table could be iterated, too.

    Raises:
        TypeError: it is not a list.
    """
    if not isinstance(answer, list):
        raise TypeError("no list")
    return answer


def _named_ids(found: Mapping[Any, object]) -> dict[str, str]:
    return {str(name): str(key) for name, key in found.items()}
