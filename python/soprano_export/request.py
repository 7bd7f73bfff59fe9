"""Requests: one JSON object, read into the dataclass of the task it names."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from pathlib import Path
from typing import Any

from . import PROTOCOL
from .errors import ExportError

ENVELOPE = ("protocol", "task", "output")


def refuse(message: str, hint: str = "") -> typing.NoReturn:
    raise ExportError("request", message, hint)


def load(path: str) -> tuple[str, Path, dict[str, Any]]:
    """Read the request at `path` into (task name, output directory, the task's own fields).

    Raises ExportError("request") when the file is not a JSON object, names another protocol, or its
    output is not an existing directory given by an absolute path.
    """
    try:
        body = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        refuse(f"cannot read the request {path}: {error.strerror}")
    except ValueError as error:
        refuse(f"the request {path} is not JSON: {error}")
    if not isinstance(body, dict):
        refuse(f"the request {path} is not a JSON object")
    for name in ENVELOPE:
        if name not in body:
            refuse(f"the request has no field `{name}`")
    protocol, task, output = (body.pop(name) for name in ENVELOPE)
    if protocol != PROTOCOL or isinstance(protocol, bool):
        refuse(
            f"the request speaks protocol {protocol!r}; this package speaks {PROTOCOL}",
            "use the package that came with the program",
        )
    if not isinstance(task, str):
        refuse("`task` is not a string")
    if not isinstance(output, str) or not Path(output).is_absolute() or not Path(output).is_dir():
        refuse(f"`output` is not an existing directory given by its absolute path: {output!r}")
    return task, Path(output), body


def parse(kind: type, body: Any, place: str = "") -> Any:
    """Read `body` into the dataclass `kind`.

    Fields may be str, int, float, bool, Literal, `X | None`, list[X], dict[str, Any] or a dataclass; one
    whose name is a keyword of Python has its metadata `name` in the request. A ValueError raised by the
    dataclass's own `__post_init__` is reported like every other refusal: ExportError("request").
    """
    if not isinstance(body, dict):
        refuse(f"`{place}` is not an object")
    hints = typing.get_type_hints(kind)
    fields = {field.metadata.get("name", field.name): field for field in dataclasses.fields(kind)}
    prefix = f"{place}." if place else ""
    for name in body:
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean `{prefix}{close[0]}`?" if close else f"fields: {', '.join(fields)}"
            refuse(f"unknown field `{prefix}{name}`", hint)
    values = {}
    for name, field in fields.items():
        if name in body:
            values[field.name] = _value(hints[field.name], body[name], prefix + name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            refuse(f"the request has no field `{prefix}{name}`")
    try:
        return kind(**values)
    except ValueError as error:
        refuse(f"{prefix}{error}")


def _value(hint: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return parse(hint, value, place)
    if origin is types.UnionType:
        inner = next(argument for argument in arguments if argument is not type(None))
        return None if value is None else _value(inner, value, place)
    if origin is typing.Literal:
        if value not in arguments:
            refuse(f"`{place}` is {value!r}", f"one of: {', '.join(map(str, arguments))}")
        return value
    if origin is list:
        if not isinstance(value, list):
            refuse(f"`{place}` is not a list")
        return [_value(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            refuse(f"`{place}` is not an object")
        return value
    if hint is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        refuse(f"`{place}` is not of type {hint.__name__}: {value!r}")
    return value
