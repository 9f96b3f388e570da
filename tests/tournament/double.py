"""A double of the tournament on the loopback interface: GraphQL, signed downloads and uploads, and faults on demand.

It knows the fields of the real schema that the engine's queries may name, answers with those alone, and refuses
others; it keeps what is uploaded, judges submissions by the tournament's rules, and counts what it was asked.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.tournament.graphql import GraphQLError, project, selection_of

SIGNATURE = "c2lnbmVk"


@dataclass
class Fault:
    """One thing that goes wrong: at `operation`, for `times` requests after `skip`, then `after` is called.

    Kinds: a status code; `cut` (carried out, then the connection breaks half-way through the answer);
    `unheard` (the connection breaks before anything is done); `slow` (carried out, but answered too late);
    `malformed` (no JSON); `no data`; for files also `ignore range`, `splice` (a part of a changed file, against
    If-Range), `short` (half of the file as if it were all), `long` (a part that claims another length),
    `no etag`; for uploads `lost` (accepted, not stored) and `corrupt` (stored altered).
    """

    operation: str
    kind: int | str
    times: int = 1
    skip: int = 0
    after: Callable[[], None] = lambda: None
    retry_after: str | None = None


@dataclass
class Asked:
    """One request as the double saw it."""

    operation: str
    method: str
    authorized: bool
    variables: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Double:
    """The state of the fake tournament; `url` is its GraphQL address while it runs (use `with`)."""

    public_id: str = field(default="PUBLIC", repr=False)
    secret_key: str = field(default="SECRET", repr=False)
    slow_s: float = 1.0
    datasets: dict[str, bytes] = field(default_factory=dict)
    round: dict[str, Any] | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    live_ids: list[str] = field(default_factory=list)
    storage: dict[str, bytes] = field(default_factory=dict)
    submissions: list[dict[str, Any]] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    diagnostics_wait: int = 0
    pickles: list[dict[str, Any]] = field(default_factory=list)
    images: tuple[str, ...] = tuple(f"Python 3.{minor}" for minor in (10, 11, 12, 13))
    validation: list[str] = field(default_factory=lambda: ["pending", "running", "validated"])
    validation_log: tuple[str, ...] = ("loaded", "predicted")
    assigned: dict[str, str] = field(default_factory=dict)
    late_rounds: int = 0
    moves: list[int] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list, repr=False)
    harm: Callable[[dict[str, Any]], Any] = field(default=lambda answer: answer, repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __enter__(self) -> Double:
        handler = type("Handler", (_Handler,), {"double": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def open_round(self, number: int = 1330, *, closes_in: timedelta = timedelta(hours=1)) -> None:
        """Make a round current that opened an hour ago, takes stakes until `closes_in`, and closes a day later."""
        now = datetime.now(UTC)
        self.round = {
            "number": number,
            "openTime": (now - timedelta(hours=1)).isoformat(),
            "closeStakingTime": (now + closes_in).isoformat(),
            "closeTime": (now + closes_in + timedelta(days=1)).isoformat(),
        }

    def add_model(self, name: str, *, pickle: str | None = None) -> str:
        model_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
        upload = {"id": "p", "filename": pickle, "validationStatus": "validated"} if pickle else None
        self.models[name] = {"id": model_id, "name": name, "tournament": 8, "computePickleUpload": upload}
        return model_id

    def fail(self, operation: str, kind: int | str, **options: Any) -> None:
        self.faults.append(Fault(operation, kind, **options))

    def count(self, operation: str) -> int:
        return sum(asked.operation == operation for asked in self.asked)

    def valid(self, name: str) -> list[dict[str, Any]]:
        """The submissions of a model that the tournament would score."""
        model_id = self.models[name]["id"]
        return [s for s in self.submissions if s["modelId"] == model_id and s["errorInfo"] is None]

    def take_fault(self, operation: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.operation != operation or fault.times == 0:
                    continue
                if fault.skip:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None

    def answer(self, operation: str, variables: dict[str, Any]) -> Any:
        """What a root field resolves to."""
        with self.lock:
            return getattr(self, "_" + re.sub(r"(?<!^)([A-Z])", r"_\1", operation).lower())(variables)

    def signed(self, kind: str, name: str) -> str:
        return f"{self.url}/{kind}/{name}?X-Signature={SIGNATURE}"

    def _list_datasets(self, _: dict[str, Any]) -> list[str]:
        return list(self.datasets)

    def _dataset(self, variables: dict[str, Any]) -> str:
        if variables["filename"] not in self.datasets:
            raise GraphQLError("Dataset not found")
        return self.signed("datasets", variables["filename"])

    def _rounds(self, variables: dict[str, Any]) -> list[Any]:
        if variables.get("status"):
            return [entry for entry in self.rounds if entry["status"] == variables["status"]]
        if self.round is None:
            raise GraphQLError("Current round not open for submissions")
        if self.moves and (number := self.moves.pop(0)) != self.round["number"]:
            self.round = {**self.round, "number": number}
        return [self.round]

    def _account(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"models": list(self.models.values())}

    def _v3_user_profile(self, variables: dict[str, Any]) -> dict[str, Any] | None:
        return self.models.get(variables["model_name"])

    def _submissions(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        return [s for s in self.submissions if s["modelId"] == variables["modelId"]]

    def _upload_slot(self, stem: str) -> dict[str, str]:
        name = f"{stem}-{uuid.uuid4().hex[:12]}"
        return {"filename": name, "url": self.signed("storage", name)}

    def _submission_upload_auth(self, variables: dict[str, Any]) -> dict[str, str]:
        if any(m["id"] == variables["modelId"] and m["computePickleUpload"] for m in self.models.values()):
            raise GraphQLError("Model has an uploaded pickle")
        return self._upload_slot("predictions")

    def _diagnostics_upload_auth(self, _: dict[str, Any]) -> dict[str, str]:
        return self._upload_slot("validation")

    def _compute_pickle_upload_auth(self, _: dict[str, Any]) -> dict[str, str]:
        return self._upload_slot("pickle")

    def _submission_download_auth(self, variables: dict[str, Any]) -> dict[str, str]:
        found = next(s for s in self.submissions if s["id"] == variables["id"])
        return {"filename": found["filename"], "url": self.signed("storage", found["filename"])}

    def _create_submission(self, variables: dict[str, Any]) -> dict[str, str]:
        if self.round is None:
            raise GraphQLError("Current round not open for submissions")
        error = judge(self.storage.get(variables["filename"]), self.live_ids)
        if error is None:
            for earlier in self.submissions:
                if earlier["modelId"] == variables["modelId"]:
                    earlier["selected"] = False
        made = {
            "id": str(uuid.uuid4()),
            "filename": variables["filename"],
            "modelId": variables["modelId"],
            "insertedAt": datetime.now(UTC).isoformat(),
            "selected": error is None,
            "errorInfo": error,
            "round": {"number": self.round["number"] + self.late_rounds, "tournament": 8},
        }
        self.submissions.append(made)
        return {"id": made["id"]}

    def _create_diagnostics(self, variables: dict[str, Any]) -> dict[str, str]:
        self.diagnostics.setdefault("filename", variables["filename"])
        return {"id": "diagnostics-1"}

    def _diagnostics(self, _: dict[str, Any]) -> list[dict[str, Any]]:
        if self.diagnostics_wait > 0:
            self.diagnostics_wait -= 1
            return [{"status": "pending"}]
        return [{"status": "done", **self.diagnostics}]

    def _compute_pickle_data_versions(self, _: dict[str, Any]) -> list[dict[str, str]]:
        return [{"name": name, "id": f"data-{name}"} for name in ("v5.2", "v5.3")]

    def _compute_pickle_docker_images(self, _: dict[str, Any]) -> list[dict[str, str]]:
        return [{"name": name, "id": f"image-{name.replace('Python ', '')}"} for name in self.images]

    def _create_compute_pickle_upload(self, variables: dict[str, Any]) -> dict[str, str]:
        self.pickles.append(variables)
        return {"id": f"pickle-{len(self.pickles)}"}

    def _compute_pickles(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        """Uploads of a model; the state of the newest moves on with every look."""
        status = self.validation.pop(0) if len(self.validation) > 1 else self.validation[0]
        listed = [
            {
                "id": f"pickle-{place}",
                "filename": made["filename"],
                "modelId": made["modelId"],
                "assignedModelSlots": [slot for slot, held in self.assigned.items() if held == f"pickle-{place}"],
                "validationStatus": status,
            }
            for place, made in enumerate(self.pickles, 1)
        ]
        wanted = variables.get("id")
        return [item for item in listed if wanted in (None, item["id"]) and item["modelId"] == variables["modelId"]]

    def _diagnostics_trigger_logs(self, _: dict[str, Any]) -> list[dict[str, str]]:
        return [{"timestamp": "2026-11-28T12:00:00Z", "message": line} for line in self.validation_log]

    def _assign_pickle_to_model(self, variables: dict[str, Any]) -> str:
        self.assigned[variables["modelId"]] = variables["pickleId"]
        return "true"

    def _submission_scores(self, variables: dict[str, Any]) -> list[dict[str, Any]]:
        return [score for score in self.scores if score["modelId"] == variables["modelId"]]


class _Server(ThreadingHTTPServer):
    """A server whose clients may vanish without comment."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class _Handler(BaseHTTPRequestHandler):
    """Answers for one `Double`."""

    double: Double
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Keep test output quiet."""

    def do_POST(self) -> None:
        body = json.loads(self._body())
        selection = selection_of(body["query"])
        operation = next(iter(selection))
        fault = self._begin(operation, body["variables"] or {})
        if self._broken(fault):
            return
        authorized = self.headers.get("Authorization")
        expected = f"Token {self.double.public_id}${self.double.secret_key}"
        if authorized is not None and authorized != expected:
            self._reply(401, b"unauthorized", fault=fault)
            return
        try:
            value = project(self.double.answer(operation, body["variables"] or {}), operation, selection[operation])
            answer: dict[str, Any] = {"data": self.double.harm({operation: value})}
        except GraphQLError as error:
            answer = {"errors": [{"message": str(error)}], "data": None}
        if fault and fault.kind == "no data":
            answer = {"data": None}
        text = b"<html>Bad gateway</html>" if fault and fault.kind == "malformed" else json.dumps(answer).encode()
        self._reply(200, text, fault=fault)

    def do_PUT(self) -> None:
        content = self._body()
        fault = self._begin("PUT", {})
        if self._broken(fault) or not self._signed():
            return
        name = urlsplit(self.path).path.removeprefix("/storage/")
        if fault is None or fault.kind not in ("lost", "corrupt"):
            self.double.storage[name] = content
        elif fault.kind == "corrupt":
            self.double.storage[name] = content.replace(b"0.", b"0.0", 1)
        self._reply(200, b"", fault=fault)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        kind, name = path.removeprefix("/").split("/", 1)
        fault = self._begin(f"GET {name}" if kind == "datasets" else "GET", {})
        if self._broken(fault) or not self._signed():
            return
        shelf = self.double.datasets if kind == "datasets" else self.double.storage
        if name not in shelf:
            self._reply(404, b"no such file", fault=fault)
            return
        self._send_file(shelf[name], fault)

    def _send_file(self, content: bytes, fault: Fault | None) -> None:
        kind = fault.kind if fault else ""
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        headers = {} if kind == "no etag" else {"ETag": etag}
        if self.headers.get("If-None-Match") == etag and kind != "no etag":
            self._reply(304, b"", headers, fault=fault)
            return
        start = self._range_start(etag, kind)
        if kind == "short":
            content = content[: len(content) // 2]
        if start is None or start >= len(content):
            self._reply(200 if start is None else 416, content if start is None else b"", headers, fault=fault)
            return
        total = len(content) + (7 if kind == "long" else 0)
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{total}"
        self._reply(206, content[start:], headers, fault=fault)

    def _range_start(self, etag: str, kind: int | str) -> int | None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if asked is None or kind == "ignore range":
            return None
        if condition is not None and condition != etag and kind != "splice":
            return None
        return int(asked.group(1))

    def _begin(self, operation: str, variables: dict[str, Any]) -> Fault | None:
        authorized = "Authorization" in self.headers
        self.double.asked.append(Asked(operation, self.command, authorized, variables, dict(self.headers)))
        return self.double.take_fault(operation)

    def _broken(self, fault: Fault | None) -> bool:
        """Whether the fault answered in place of the double."""
        if fault is None:
            return False
        if fault.kind == "unheard":
            self.close_connection = True
            self.connection.close()
            fault.after()
            return True
        if isinstance(fault.kind, int):
            headers = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            self._reply(fault.kind, b"{}", headers, fault=fault)
            return True
        return False

    def _signed(self) -> bool:
        signature = parse_qs(urlsplit(self.path).query).get("X-Signature")
        if signature == [SIGNATURE]:
            return True
        self._reply(403, b"not signed")
        return False

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _reply(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, fault: Fault | None = None
    ) -> None:
        kind = fault.kind if fault else ""
        if fault:
            fault.after()
        if kind == "slow":
            time.sleep(self.double.slow_s)
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2] if kind == "cut" else content)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        if kind == "cut":
            self.close_connection = True


def judge(content: bytes | None, live_ids: Iterable[str]) -> str | None:
    """What the tournament finds wrong with a submission, by the rules of its own validator."""
    if content is None:
        return "file not found"
    rows = list(csv.reader(io.StringIO(content.decode())))
    if rows[0] != ["id", "prediction"]:
        return "invalid_submission_headers"
    given = [row[0] for row in rows[1:]]
    if len(set(given)) != len(given) or not set(live_ids) <= set(given):
        return "invalid_submission_ids"
    values = [float(row[1]) for row in rows[1:]]
    inside = all(0.0 <= value <= 1.0 for value in values)
    return None if inside and min(values) < max(values) else "invalid_submission_values"
