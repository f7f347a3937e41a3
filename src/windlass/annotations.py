"""What a parameter's annotation means for JSON: its type, its schema, and its errors in words.

The part of ``signature.py`` that knows Python's typing and the notation of msgspec's messages.
"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import msgspec

from windlass import codec
from windlass.errors import FieldError, PayloadError

__all__ = ["default_schema", "field_errors", "foreign_type", "json_schema", "resolve", "struct_of"]

_AT = re.compile(r"(?P<what>.*?) - at `(?P<key>key` in `)?\$(?P<path>.*)`", re.DOTALL)
_STEP = re.compile(r"\.(?P<name>[^.\[]+)|\[(?P<index>\d+)\]|(?P<any>\[\.\.\.\])")
_LONG = 100_000
"""Characters of an error that are read: the place stands at the end of a message of any length."""
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
            if node.cls is not object and not codec.is_pydantic(node.cls):
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


def struct_of(
    parameters: Mapping[str, inspect.Parameter], hints: dict[str, Any]
) -> type[msgspec.Struct]:
    """A struct whose constructor binds arguments as the function does."""
    bases: tuple[type[msgspec.Struct], ...] = (msgspec.Struct,)
    for keyword_only in (False, True):
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
            (p.name, hints[p.name])
            if p.default is inspect.Parameter.empty
            else (p.name, hints[p.name], msgspec.UNSET)
            for p in parameters.values()
            if (p.kind is p.KEYWORD_ONLY) is keyword_only
        ]
        bases = (
            msgspec.defstruct(
                "Payload", fields, bases=bases, kw_only=keyword_only, forbid_unknown_fields=True
            ),
        )
    return bases[0]


def json_schema(hint: Any, ref_template: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of *hint*; the classes that it refers to are added to *definitions* by name."""

    def foreign_schema(kind: Any) -> dict[str, Any]:
        if kind is object:
            return {}
        schema: dict[str, Any] = kind.model_json_schema(
            ref_template=ref_template.replace("{name}", "{model}")
        )
        # The references of pydantic count from the root as well, so its definitions move there.
        definitions.update(schema.pop("$defs", {}))
        return schema

    (schema,), components = msgspec.json.schema_components(
        (hint,), schema_hook=foreign_schema, ref_template=ref_template
    )
    definitions.update(components)
    return schema


def default_schema(default: object) -> dict[str, Any]:
    """The ``default`` keyword for a schema; nothing when the default has no JSON form."""
    try:
        return {"default": msgspec.json.decode(codec.dump(default))}
    except PayloadError:
        return {}


def field_errors(
    pointer: str, error: BaseException, decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw
) -> list[FieldError]:
    """Why *decoder* refused *raw*, by JSON pointers that begin with *pointer*."""
    text = codec.safe_text(error, _LONG)
    if at := _AT.fullmatch(text):
        pointer += "".join(
            f"/{codec.pointer_token(step)}" for step in _steps(at["path"], decoder, raw)
        )
        text = f"has a key that does not fit: {at['what']}" if at["key"] else at["what"]
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
        unknown = absent["what"] == "contains unknown"
        return [
            FieldError(
                f"{pointer}/{codec.pointer_token(absent['name'])}",
                "is no field of this object." if unknown else "is missing.",
            )
        ]
    return [FieldError(pointer, codec.safe_text(text[:1].lower() + text[1:], 500) + ".")]


def _steps(
    path: str, decoder: msgspec.json.Decoder[Any], raw: bytes | msgspec.Raw
) -> Iterator[str | int]:
    """The steps of a path such as ``.a[0][...]``, with the keys for which ``[...]`` stands.

    msgspec does not tell the key of a mapping, so it is searched for: halve the mapping, decode
    again, and keep the half that fails at the same place.
    """
    whole = node = msgspec.json.decode(raw)
    for match in _STEP.finditer(path):
        step: str | int | None = match["name"] or int(match["index"] or 0)
        if match["any"]:
            step = _failing_key(whole, node, path, decoder) if isinstance(node, dict) else None
        if step is None:
            return
        yield step
        try:
            node = node[step]
        except (LookupError, TypeError):
            return


def _failing_key(
    whole: object, mapping: dict[str, Any], path: str, decoder: msgspec.json.Decoder[Any]
) -> str | None:
    items = list(mapping.items())
    while len(items) > 1:
        half = items[: len(items) // 2]
        mapping.clear()
        mapping.update(half)
        items = half if _fails_at(path, whole, decoder) else items[len(half) :]
    mapping.clear()
    mapping.update(items)
    return items[0][0] if items else None


def _fails_at(path: str, whole: object, decoder: msgspec.json.Decoder[Any]) -> bool:
    try:
        decoder.decode(msgspec.json.encode(whole))
    except Exception as error:
        # As in Signature.decode(): a user's type may fail as it likes.
        at = _AT.fullmatch(codec.safe_text(error, _LONG))
        return at is not None and at["path"] == path
    return False
