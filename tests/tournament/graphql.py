"""As much GraphQL as the double needs: the fields it knows, and answers cut down to those asked for."""

from __future__ import annotations

import re
from typing import Any

MODEL_FIELDS = {"id", "name", "tournament", "computePickleUpload"}
SCHEMA: dict[str, set[str]] = {
    "rounds": {"number", "openTime", "closeTime", "closeStakingTime", "roundScoreConfigs", "id", "tournament", "target"}
    | {"scoreTime", "resolveTime", "resolvedGeneral", "resolvedStaking", "payoutFactor", "stakeThreshold"}
    | {"dataDatestamp"},
    "account": {"models"},
    "models": MODEL_FIELDS,
    "computePickleUpload": {"id", "filename", "validationStatus"},
    "submissions": {"id", "filename", "insertedAt", "selected", "status", "errorInfo", "round"},
    "round": {"number", "tournament"},
    "submission_upload_auth": {"filename", "url"},
    "diagnosticsUploadAuth": {"filename", "url"},
    "computePickleUploadAuth": {"filename", "url"},
    "submissionDownloadAuth": {"filename", "url"},
    "create_submission": {"id"},
    "createDiagnostics": {"id"},
    "createComputePickleUpload": {"id"},
    "computePickles": {"id", "filename", "modelId", "assignedModelSlots", "validationStatus", "diagnosticsStatus"}
    | {"triggerStatus", "insertedAt", "updatedAt"},
    "diagnosticsTriggerLogs": {"timestamp", "message"},
}


class GraphQLError(Exception):
    """An error that the API reports in a 200 answer."""


def selection_of(query: str) -> dict[str, Any]:
    """The nested selection sets of a query, arguments left out."""
    text = re.sub(r"\([^()]*\)", " ", query)
    tokens = iter(re.findall(r"\w+|[{}]", text[text.index("{") :]))
    next(tokens)

    def block() -> dict[str, Any]:
        fields: dict[str, Any] = {}
        name = ""
        for token in tokens:
            if token == "{":
                fields[name] = block()
            elif token == "}":
                return fields
            else:
                name = token
                fields[name] = {}
        return fields

    return block()


def project(value: Any, name: str, selection: dict[str, Any]) -> Any:
    """The asked-for fields of a value; a field that the schema does not have is an error, as in the real API."""
    if isinstance(value, list):
        return [project(item, name, selection) for item in value]
    if not isinstance(value, dict):
        return value
    unknown = set(selection) - SCHEMA[name] if name in SCHEMA else set()
    if unknown:
        raise GraphQLError(f"Cannot query field {sorted(unknown)} on {name}")
    return {key: project(value.get(key), key, inner) for key, inner in selection.items()}
