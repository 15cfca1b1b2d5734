"""The OpenAPI document of the API. A test asks a running sidecar whether it is true."""

from typing import Any

from sidecar import __version__
from sidecar.config.kinds import NAME_PATTERN

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_TRUTH: Schema = {"type": "boolean"}
_TEXTS: Schema = {"type": "array", "items": _TEXT}
_NAME: Schema = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
_DURATION: Schema = {"type": "string", "pattern": "^[1-9][0-9]{0,2}(ms|s|m)$", "example": "90s"}
_ROLE: Schema = {"enum": ["active", "standby"]}
_STATE: Schema = {
    "enum": ["starting", "running", "stopping", "stopped", "monitoring", "failed", "paused"],
}


def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "aggregate-sidecar",
            "version": __version__,
            "description": "One node of a cluster of AggreGate Servers of which exactly one is active. "
            "Everything that is read is answered from this node's memory. See docs/api.md.",
        },
        "paths": _health_paths() | _read_paths() | _command_paths(),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": _schemas(),
        },
    }


def _health_paths() -> Schema:
    said = {
        "active": "This node has the lock, its lease is valid at this instant and its server runs.",
        "standby": "This node does not have the lock, and no active server of it is left.",
        "live": "The deciding loop of this sidecar turns.",
        "ready": "This node serves as active, or could take over now.",
    }
    found: Schema = {}
    for name, summary in said.items():
        answers = {"200": _json("Yes.", _ref("Health")), "503": _json("No; says why.", _ref("Health"))}
        found[f"/{name}"] = {
            "get": {"operationId": name, "summary": summary, "responses": answers},
            "head": {"summary": summary, "responses": {"200": _empty("Yes."), "503": _empty("No.")}},
            "options": {"summary": summary, "responses": answers},
        }
    return found


def _read_paths() -> Schema:
    count: Schema = {
        "name": "n",
        "in": "query",
        "description": "At most so many, the newest first.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20},
    }
    error = _ref("Error")
    history = {
        "200": _json("As `sidecar history -o json`.", {"type": "array", "items": _ref("Change")}),
        "400": _json("n is out of range.", error),
        "503": _json("It could not be read since the start: the store does not answer.", error),
    }
    return {
        "/": _get("The status page.", {"200": _content("A page.", "text/html", _TEXT)}),
        "/status": _get("As `sidecar status -o json`.", {"200": _json("The cluster.", _ref("Status"))}),
        "/history": _get("Every change of active.", history, [count]),
        "/metrics": _get(
            "Metrics for Prometheus.",
            {"200": _content("Metrics.", "text/plain", _TEXT), "404": _json("None are kept.", error)},
        ),
        "/events": _get(
            "What happens, as server-sent events: status, role_changed, request, probe_failed, "
            "server_started, server_ended, backend_trouble, backend_well, alarm.",
            {
                "200": _content("A stream without an end.", "text/event-stream", _TEXT),
                "503": _json("Too many readers.", error),
            },
        ),
        "/openapi.json": _get("This document.", {"200": _json("It.", {"type": "object"})}),
    }


def _command_paths() -> Schema:
    to: Schema = {"to": _or_null(_NAME), "timeout": _or_null(_DURATION)}
    node: Schema = {"node": _or_null(_NAME)}
    force: Schema = {"force": _TRUTH, "raise_epoch": _TRUTH}
    return {
        "/switchover": _command("Ask the active to hand over, and wait for the outcome.", to),
        "/failover": _command(
            "Take the lock from an active that does not answer. Without force nothing is done, and the "
            "answer says what is at risk.",
            to | force,
        ),
        "/pause": _command("Begin maintenance of a node, or of the cluster.", node),
        "/resume": _command("End maintenance of a node, or of the cluster.", node),
        "/restart": _command(
            "Restart a node's server in place; this node's unless another one is named.",
            node | {"timeout": _or_null(_DURATION)},
        ),
    }


def _command(summary: str, fields: Schema) -> Schema:
    body = {"type": "object", "properties": fields, "additionalProperties": False}
    said = {
        "200": "Observed done.",
        "400": "Not understood; nothing was done.",
        "401": "The token is missing or wrong.",
        "403": "No token is configured, or the connection cannot keep one secret.",
        "408": "The body did not come in time.",
        "409": "Refused or failed: exit_code 4 or 1.",
        "429": "Too many commands are under way.",
        "503": "The store cannot be reached; nothing was done.",
        "504": "The outcome is not known; says how to find out.",
    }
    responses = {status: _json(meaning, _ref("Outcome")) for status, meaning in said.items()}
    responses["413"] = _json("The body is too large.", _ref("Error"))
    return {
        "post": {
            "summary": summary,
            "security": [{"token": []}],
            "requestBody": {"required": False, "content": {"application/json": {"schema": body}}},
            "responses": responses,
        }
    }


def _schemas() -> Schema:
    return {
        "Error": _object({"message": _TEXT}),
        "Health": _object(
            {
                "ok": _TRUTH,
                "reason": _or_null(_TEXT),
                "node": _TEXT,
                "role": _ROLE,
                "state": _STATE,
                "epoch": _or_null(_COUNT),
                "lease_remaining_s": _or_null(_NUMBER),
            },
            required=["ok", "reason"],
        ),
        "Outcome": _object(
            {
                "command": _TEXT,
                "outcome": {"enum": ["done", "failed", "bad_request", "unreachable", "refused", "unknown"]},
                "exit_code": {"type": "integer", "minimum": 0, "maximum": 5},
                "message": _TEXT,
                "said": _TEXTS,
                "risks": _TEXTS,
                "node": _TEXT,
                "epoch": _COUNT,
                "without_active_s": _or_null(_NUMBER),
                "changed": _TRUTH,
                "not_heard_by": _TEXTS,
            },
            required=["command", "outcome", "exit_code", "message", "said"],
        ),
        "Change": _object(
            {
                "at": _or_null(_TEXT),
                "epoch": _COUNT,
                "from": _or_null(_TEXT),
                "to": _TEXT,
                "cause": _TEXT,
                "detect_s": _or_null(_NUMBER),
                "lock_s": _or_null(_NUMBER),
                "start_s": _or_null(_NUMBER),
            }
        ),
        "Status": _status(),
        "Node": _node(),
    }


def _status() -> Schema:
    pending = {"id": _TEXT, "kind": _TEXT, "state": _TEXT, "from": _or_null(_TEXT), "to": _or_null(_TEXT)}
    return _object(
        {
            "cluster": _TEXT,
            "backend": _TEXT,
            "paused": _or_null(_TRUTH),
            "active": _or_null(_TEXT),
            "epoch": _or_null(_COUNT),
            "pending": _or_null(_object(pending | {"epoch": _COUNT, "by": _TEXT, "age_s": _NUMBER})),
            "nodes": {"type": "array", "items": _ref("Node")},
            "paused_nodes": _TEXTS,
            "notices": _TEXTS,
            "node": _TEXT,
            "view_age_s": _or_null(_NUMBER),
        }
    )


def _node() -> Schema:
    server = {"pid": _COUNT, "uptime_s": _NUMBER, "rss_bytes": _COUNT, "cpu_percent": _NUMBER}
    return _object(
        {
            "node": _TEXT,
            "role": _ROLE,
            "state": _STATE,
            "message": _TEXT,
            "epoch": _COUNT,
            "lease_remaining_s": _or_null(_NUMBER),
            "enforcement": {"enum": ["kernel", "process", "none"]},
            "priority": {"type": "integer"},
            "eligible": _TRUTH,
            "available": _TRUTH,
            "last_seen_s": _NUMBER,
            "version": _TEXT,
            "server": _or_null(_object(server)),
            "api": _or_null(_TEXT),
        }
    )


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required is None else required,
        "additionalProperties": False,
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _get(summary: str, responses: Schema, parameters: list[Schema] | None = None) -> Schema:
    return {"get": {"summary": summary, "parameters": parameters or [], "responses": responses}}


def _json(description: str, schema: Schema) -> Schema:
    return _content(description, "application/json", schema)


def _content(description: str, kind: str, schema: Schema) -> Schema:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _empty(description: str) -> Schema:
    return {"description": description}
