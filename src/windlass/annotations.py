"""What a parameter's annotation means for JSON: its type, its schema, and its errors in words.

The part of ``signature.py`` that knows Python's typing and the notation of msgspec's messages.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from windlass import codec
from windlass.errors import FieldError, PayloadError

__all__ = ["default_schema", "field_errors", "foreign_type", "json_schema", "resolve"]

_AT = re.compile(r"(?P<what>.*?) - at `(?P<key>key` in `)?\$(?P<path>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")
_ABSENT = re.compile(r"Object (?P<what>missing required|contains unknown) field `(?P<name>.*)`")


def resolve(annotation: Any, function: Callable[..., Any]) -> Any:
    """The type that *annotation* stands for: it may be a string, or hold strings.

    Raises:
        NameError: it names what is not (yet) defined where *function* is.
    """
    if annotation is inspect.Parameter.empty:
        return Any
    scope = getattr(inspect.unwrap(function), "__globals__", {})
    holder: Any = SimpleNamespace(__annotations__={"it": annotation})
    return typing.get_type_hints(holder, scope, include_extras=True)["it"]


def foreign_type(hint: Any) -> Any | None:
    """A class within *hint* that has no JSON form, or None."""
    stack: list[Any] = [msgspec.inspect.type_info(hint)]
    seen: set[int] = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, msgspec.inspect.CustomType):
            if not codec.is_pydantic(node.cls):
                return node.cls
            continue
        for name in node.__struct_fields__:
            value = getattr(node, name)
            children = value if isinstance(value, tuple) else (value,)
            stack.extend(
                child
                for child in children
                if isinstance(child, (msgspec.inspect.Type, msgspec.inspect.Field))
            )
    return None


def json_schema(hint: Any, ref_template: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of *hint*; the classes that it refers to are added to *definitions* by name."""

    def pydantic_schema(kind: Any) -> dict[str, Any]:
        schema: dict[str, Any] = kind.model_json_schema(
            ref_template=ref_template.replace("{name}", "{model}")
        )
        # The references of pydantic count from the root as well, so its definitions move there.
        definitions.update(schema.pop("$defs", {}))
        return schema

    (schema,), components = msgspec.json.schema_components(
        (hint,), schema_hook=pydantic_schema, ref_template=ref_template
    )
    definitions.update(components)
    return schema


def default_schema(default: object) -> dict[str, Any]:
    """The ``default`` keyword for a schema; nothing when the default has no JSON form."""
    try:
        return {"default": msgspec.json.decode(codec.dump(default))}
    except PayloadError:
        return {}


def field_errors(pointer: str, error: BaseException) -> list[FieldError]:
    """What a decoder's *error* says, by JSON pointers that begin with *pointer*."""
    text = codec.safe_text(error, 500)
    if at := _AT.fullmatch(text):
        text = f"has a key that does not fit: {at['what']}" if at["key"] else at["what"]
        for step in _STEP.finditer(at["path"]):
            if step["any"]:
                # msgspec does not tell the key, so the object that holds it must do.
                text = f"holds a value that does not fit: {text}"
                break
            pointer += f"/{codec.pointer_token(step['name'] or step['index'])}"
    cause: Any = error.__cause__
    if callable(getattr(cause, "errors", None)) and type(cause).__module__.startswith("pydantic"):
        return [
            FieldError(
                "/".join((pointer, *map(codec.pointer_token, problem["loc"]))),
                f"does not fit: {codec.safe_text(problem['msg'], 500)}.",
            )
            for problem in cause.errors(include_url=False, include_input=False)
        ]
    if absent := _ABSENT.fullmatch(text):
        known = absent["what"] == "contains unknown"
        return [
            FieldError(
                f"{pointer}/{codec.pointer_token(absent['name'])}",
                "is no field of this object." if known else "is missing.",
            )
        ]
    return [FieldError(pointer, text[:1].lower() + text[1:] + ".")]
