"""The published schemas of the data format, made from the structs that decode it: JSON Schema and CDDL (RFC 8610).

`python -m flexmeter.messages.schema docs/format` writes the files; a test keeps them in step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import inspect

from flexmeter.messages.notices import Gap, Rejection, Roster, State, TopologyAlert
from flexmeter.messages.wire import JsonTable, JsonVector, WireEstimate, WireReadings

_JSON_TYPES: Mapping[str, Any] = {
    "readings": WireReadings[JsonTable],
    "estimate": WireEstimate[JsonTable, JsonVector],
    "topology": TopologyAlert,
    "rejection": Rejection,
    "gap": Gap,
    "state": State,
    "roster": Roster,
}
_CBOR_HEAD = """\
; Flexmeter Data Format, version 1, as CBOR. The same schema as the JSON Schemas beside this file;
; bulk numbers are typed arrays (RFC 8746), row after row, nan = no value. Energies need 64 bits.
message = readings / estimate / topology / rejection / gap / state / roster
numbers = float32le / float64le / float32be / float64be / [* (number / null)] / [* [* (number / null)]]
float32be = #6.81(bstr)
float64be = #6.82(bstr)
float32le = #6.85(bstr)
float64le = #6.86(bstr)
"""
_PLAIN_TYPES = {inspect.FloatType: "number", inspect.BoolType: "bool", inspect.NoneType: "null"}


def documents() -> dict[str, str]:
    """Return the files to publish: name and text."""
    texts = {f"{name}.schema.json": _json_schema(name, kind) for name, kind in _JSON_TYPES.items()}
    return texts | {"flexmeter.cddl": cddl()}


def cddl() -> str:
    """Return the CDDL of all messages."""
    definitions: dict[str, str] = {}
    for name, kind in _JSON_TYPES.items():
        _define(inspect.type_info(kind), name, definitions)
    return _CBOR_HEAD + "\n" + "\n".join(definitions.values())


def _json_schema(name: str, kind: Any) -> str:
    schema = msgspec.json.schema(kind)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Flexmeter Data Format 1: {name}",
    }
    return json.dumps(head | schema, indent=1) + "\n"


def _define(kind: inspect.Type, name: str, definitions: dict[str, str]) -> str:
    """Add the rule of a struct and return its name."""
    assert isinstance(kind, inspect.StructType)
    if name not in definitions:
        definitions[name] = ""
        lines = [
            ("  " if field.required else "  ? ") + f"{field.name}: {_type(field.type, field.name, definitions)}"
            for field in kind.fields
        ]
        definitions[name] = f"{name} = {{\n" + ",\n".join(lines) + "\n}\n"
    return name


def _type(kind: inspect.Type, field: str, definitions: dict[str, str]) -> str:  # noqa: PLR0911 (one per type)
    if field in ("values", "sigma", "covariance") and not isinstance(kind, inspect.FloatType):
        return "numbers"
    match kind:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            choices = (extra or {}).get("enum")
            return _rule("column", _choices(choices), definitions) if choices else _type(inner, field, definitions)
        case inspect.IntType():
            return _range(kind)
        case inspect.StrType(pattern=pattern):
            return f'tstr .regexp "{pattern.strip("^$")}"' if pattern else "tstr"
        case inspect.LiteralType(values=values):
            return _choices(values)
        case inspect.UnionType(types=types):
            return " / ".join(_type(one, field, definitions) for one in types)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return f"[* {_type(item, field, definitions)}]"
        case inspect.StructType():
            return _define(kind, kind.cls.__name__.removeprefix("Wire").lower(), definitions)
    return _PLAIN_TYPES[type(kind)]


def _rule(name: str, text: str, definitions: dict[str, str]) -> str:
    definitions[name] = f"{name} = {text}\n"
    return name


def _range(kind: inspect.IntType) -> str:
    if kind.ge is None:
        return "int"
    return f"{kind.ge}..{kind.le}" if kind.le is not None else "uint"


def _choices(values: Any) -> str:
    """Return the choices, a few to a line."""
    texts = [json.dumps(value) for value in values]
    lines = [" / ".join(texts[i : i + 4]) for i in range(0, len(texts), 4)]
    return " /\n  ".join(lines)


def main(folder: Path) -> None:
    """Write the documents into a folder."""
    for name, text in documents().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
