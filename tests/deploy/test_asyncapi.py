"""The AsyncAPI document: whole in itself, and true of the records that the program makes."""

import copy
import json
import re
import struct
from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
import pytest
import yaml

from stream_calib.service.topics import ROLES
from stream_calib.values import Output
from stream_calib.wire.matrices import MAGIC, PACKED_TYPE, join
from tests.deploy.real_messages import published, tick_values
from tests.real_parts import ROOT

PATH = ROOT / "deploy" / "asyncapi.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
MESSAGES = DOCUMENT["components"]["messages"]
# which message a record is, where a channel has several
PACKED = {PACKED_TYPE: "packedMatrix", "application/json": "matrix"}


def references(node: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield where each reference stands and what it names."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield path, node["$ref"]
        for key, value in node.items():
            yield from references(value, f"{path}/{key}")
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from references(value, f"{path}/{i}")


def target(reference: str) -> Any:
    """Return what a reference names, through further references."""
    node: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
        while isinstance(node, dict) and set(node) == {"$ref"}:
            node = target(node["$ref"])
    return node


def validator(
    schema: Mapping[str, Any], schemas: Mapping[str, Any] = SCHEMAS
) -> jsonschema.Draft7Validator:
    """AsyncAPI's own schemas are those of JSON Schema draft 07."""
    return jsonschema.Draft7Validator({"allOf": [schema], "components": {"schemas": schemas}})


def message_of(record: Output) -> str:
    """Name the message that a record is."""
    role = record.topic.rpartition(".")[2]
    if role == "correlations":
        return PACKED[dict(record.headers)["content-type"].decode()]
    (name,) = DOCUMENT["channels"][role]["messages"]
    return str(name)


def faults(record: Output, schemas: Mapping[str, Any] = SCHEMAS) -> list[str]:
    """Say what of a record is not as the document has it."""
    message = MESSAGES[message_of(record)]
    parts = [
        (message["headers"], {name: value.decode() for name, value in record.headers}),
        (message["bindings"]["kafka"]["key"], record.key.decode()),
    ]
    if message["contentType"] == "application/json":
        parts.append((message["payload"], json.loads(record.value)))
    return [
        f"{message_of(record)}: {error.json_path}: {error.message[:200]}"
        for schema, instance in parts
        for error in validator(schema, schemas).iter_errors(instance)
    ]


# the document in itself


def test_the_document_has_what_asyncapi_3_asks_for() -> None:
    assert DOCUMENT["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= DOCUMENT["info"].keys()
    for server in DOCUMENT["servers"].values():
        assert {"host", "protocol"} <= server.keys()
    for channel in DOCUMENT["channels"].values():
        named = set(re.findall(r"{(\w+)}", channel["address"]))
        assert named == channel["parameters"].keys()
        assert channel["messages"]
    for operation in DOCUMENT["operations"].values():
        assert operation["action"] in {"send", "receive"}
    for message in MESSAGES.values():
        assert {"title", "contentType", "payload"} <= message.keys()


def test_every_reference_leads_somewhere_and_nothing_is_left_out() -> None:
    found = {reference for _, reference in references(DOCUMENT)}
    for reference in found:
        assert target(reference) is not None, reference
    for kind in ("messages", "schemas", "parameters"):
        names = {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]}
        # the head of packed bytes is within what no schema can describe
        assert names - found <= {"#/components/schemas/PackedHead"}


def test_no_reference_has_anything_beside_it() -> None:
    # draft 07 would pass over what stands beside one
    def nodes(node: object) -> Iterator[dict[str, Any]]:
        if isinstance(node, dict):
            yield node
        for value in node.values() if isinstance(node, dict) else node:  # type: ignore[attr-defined]
            if isinstance(value, dict | list):
                yield from nodes(value)

    assert [node for node in nodes(DOCUMENT) if "$ref" in node and len(node) > 1] == []


def test_operations_speak_of_messages_of_their_channels_and_no_channel_is_without() -> None:
    used = set()
    for operation in DOCUMENT["operations"].values():
        channel = operation["channel"]["$ref"]
        used.add(channel.rpartition("/")[2])
        own = [message["$ref"] for message in operation["messages"]]
        expected = target(channel)["messages"]
        assert own == [f"{channel}/messages/{name}" for name in expected]
    assert used == DOCUMENT["channels"].keys()


def test_the_topics_are_those_that_the_service_reads_and_writes() -> None:
    assert DOCUMENT["channels"].keys() == {"ticks", *ROLES}
    for role in ROLES:
        assert DOCUMENT["channels"][role]["address"] == f"{{prefix}}.{role}"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_of_json_schema(name: str) -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", [name for name in MESSAGES if "examples" in MESSAGES[name]])
def test_examples_are_as_the_document_says(name: str) -> None:
    for example in MESSAGES[name]["examples"]:
        for part in ("headers", "payload"):
            if part in example:
                validator(MESSAGES[name][part]).validate(example[part])


# real records


@pytest.mark.parametrize("role", ROLES)
def test_real_records_are_as_the_document_says(role: str) -> None:
    records = published()[role]
    assert len(records) > 1
    assert [fault for record in records for fault in faults(record)] == []


def test_the_head_of_packed_matrices_is_as_the_document_says() -> None:
    packed = [r for r in published()["correlations"] if message_of(r) == "packedMatrix"]
    first = [r for r in packed if r.value.startswith(MAGIC)]
    assert len(packed) > len(first) > 1  # some in chunks
    for record in first:
        (size,) = struct.unpack_from("<I", record.value, 4)
        validator(SCHEMAS["PackedHead"]).validate(json.loads(record.value[8 : 8 + size]))


def test_real_ticks_are_as_the_document_says() -> None:
    for name, message in (("native", "tick"), ("columnar", "columns")):
        found = tick_values(name)
        assert found
        for value in found:
            validator(MESSAGES[message]["payload"]).validate(value)
    assert not validator(MESSAGES["tick"]["payload"]).is_valid({"symbol": "A", "time": 1})


def documented_events() -> list[str]:
    found: list[str] = []
    for branch in SCHEMAS["Event"]["oneOf"]:
        of = branch["properties"]["type"]
        found += of.get("enum") or [of["const"]]
    return found


def test_every_documented_event_was_seen_and_every_one_seen_is_documented() -> None:
    seen = {json.loads(record.value)["type"] for record in published()["events"]}
    assert seen == set(documented_events())
    assert len(documented_events()) == len(set(documented_events()))


def test_the_readme_names_the_same_events() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (row,) = [line for line in text.splitlines() if line.startswith("| `<prefix>.events`")]
    assert set(documented_events()) == set(re.findall(r"`(\w+)`", row)) - {
        "type",
        "time_ns",
        "details",
    }


# that the tests above can fail


@pytest.mark.parametrize(
    ("role", "schema", "field"),
    [
        ("correlations", "MatrixFields", "vol"),
        ("correlations", "MatrixFields", "audit"),
        ("correlations", "Quality", "repair"),
        ("correlations", "Regime", "effective_bets"),
        ("correlations", "CloudEvent", "chunk"),
        ("events", "Event", "time_ns"),
        ("events", "DriftAlarm", "since_ns"),
        ("events", "RefitInstalled", "lead"),
        ("events", "PriceJump", "split"),
        ("calibrations", "Calibration", "window"),
        ("calibrations", "Parameter", "se"),
        ("universes", "Universe", "estimators"),
        ("rejects", "RejectHeaders", "reason"),
        ("journal", "Move", "watermarks"),
        ("fits", "FitHeaders", "hash"),
    ],
)
def test_a_field_that_is_renamed_does_not_fit_real_records(
    role: str, schema: str, field: str
) -> None:
    renamed = copy.deepcopy(SCHEMAS)
    properties = renamed[schema]["properties"]
    properties[f"{field}_"] = properties.pop(field)
    required = renamed[schema].get("required", [])
    renamed[schema]["required"] = [f"{name}_" if name == field else name for name in required]
    assert any(faults(record, renamed) for record in published()[role])


def test_the_chunks_of_the_records_seen_go_together() -> None:
    chunks = [
        (record.value, dict(record.headers))
        for record in published()["correlations"]
        if not dict(record.headers)["chunk"].endswith(b"/1")
    ]
    assert len(chunks) > 1
    assert len(join(chunks).symbols) == 700
