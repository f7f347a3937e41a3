"""A task's signature: what its payload must look like, and the way from a call to bytes and back.

The payload is a JSON object of the task's arguments by name, holding *only what the caller gave*:
a default is applied when the job runs, so a changed default also holds for jobs that wait. A payload
is accepted when its bytes, read back by the parameters' annotations, give what the caller passed;
so a wrong type is refused at enqueue, and so is whatever JSON would change on the way.

The quick path does that with one generated struct, in C. Whatever does not pass there is walked
through again slowly, to be accepted after all (a tuple that came back as a list) or explained.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from windlass import codec
from windlass.annotations import (
    default_schema,
    field_errors,
    foreign_type,
    json_schema,
    resolve,
    struct_of,
)
from windlass.errors import FieldError, PayloadError, ResultError, TaskError
from windlass.roundtrip import difference

__all__ = ["Call", "Signature"]

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments, as in ``function(*args, **kwargs)``."""

_EMPTY = inspect.Parameter.empty
_UNSET = msgspec.UNSET


class _Plan(NamedTuple):
    """What is known once the annotations are resolved."""

    hints: dict[str, Any]
    decoders: dict[str, msgspec.json.Decoder[Any]]
    """One per parameter."""
    extra: msgspec.json.Decoder[Any] | None
    """For the keys of ``**kwargs``, when the function takes them."""
    struct: type[msgspec.Struct]
    decode: Callable[[bytes], msgspec.Struct]


class Signature:
    """The parameters of a task as the shape of its payload. Make one by :meth:`of`."""

    __slots__ = (
        "_extra",
        "_function",
        "_max_bytes",
        "_names",
        "_parameters",
        "_plan",
        "_positional_only",
        "_result",
        "_return",
        "_type",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Mapping[str, inspect.Parameter],
        extra: inspect.Parameter | None,
        returns: Any,
        max_bytes: int,
        type: str,
    ) -> None:
        self._function = function
        self._type = type
        self._parameters = parameters
        self._names = tuple(parameters)
        self._positional_only = tuple(
            p.name for p in parameters.values() if p.kind is p.POSITIONAL_ONLY
        )
        self._extra = extra
        self._return = returns
        self._max_bytes = max_bytes
        self._plan: _Plan | None = None
        self._result: tuple[Any, msgspec.json.Decoder[Any]] | None = None

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        context_param: str | None = None,
        max_bytes: int = codec.MAX_BYTES,
        type: str | None = None,
    ) -> Signature:
        """Read the signature of *function*, leaving out its parameter *context_param*.

        Errors call the task by its *type*, if that is not the function's name.

        Annotations that name what is not defined yet are resolved at the first use.

        Raises:
            TaskError: the function takes ``*args``, or an annotation has no JSON form.
        """
        spec = inspect.signature(function)
        called = type or _name(function)
        parameters: dict[str, inspect.Parameter] = {}
        extra = None
        for name, parameter in spec.parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise TaskError(
                    f"Task {called} takes *{name}, but a payload is an object of named "
                    f"arguments: take a list instead, such as `{name}: list[str]`."
                )
            if parameter.kind is parameter.VAR_KEYWORD:
                extra = parameter
            elif name != context_param:
                parameters[name] = parameter
        self = cls(function, parameters, extra, spec.return_annotation, max_bytes, called)
        try:
            self._plan = self._resolve()
        except _UnresolvedError:
            # A forward reference: the name may be defined by the time of the first use.
            self._plan = None
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that a payload may name, without those caught by ``**kwargs``."""
        return self._names

    def resolve(self) -> None:
        """Find what the annotations name, by the end of their module at the latest.

        Raises TaskError for one that names nothing.
        """
        if self._plan is None:
            self._planned()

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        """The payload of the call ``function(*args, **kwargs)``, bound and checked.

        Raises:
            PayloadError: a name is wrong, missing or given twice, a value does not fit its
                parameter's annotation, or cannot be stored; ``errors`` names each.
        """
        plan = self._plan or self._planned()
        if plan.extra is None:
            try:
                given = plan.struct(*args, **kwargs)
                raw = codec.encode(given)
                if codec.is_plain(raw, self._max_bytes) and plan.decode(raw) == given:
                    return raw
            except Exception:  # noqa: S110 - explained by the slow path, which does it all again
                pass
        return self._encode_carefully(args, kwargs)

    def check(self, raw: bytes) -> bytes:
        """Judge a payload that arrived as JSON, and return the bytes to store: the same.

        Raises:
            PayloadError: as :meth:`encode`, or *raw* is no JSON object that is safe to store.
        """
        codec.check_json(raw, max_bytes=self._max_bytes)
        self.decode(raw)
        return raw

    def decode(self, raw: bytes) -> Call:
        """The typed arguments of a stored payload, ready to be passed on.

        Raises:
            PayloadError: the payload does not fit this signature, or is damaged.
        """
        plan = self._plan or self._planned()
        if plan.extra is not None:
            return self._arranged(self._decode_fields(plan, raw))
        try:
            found = plan.decode(raw)
        except Exception as error:
            # Not only msgspec's errors: a type of the user's may fail as it likes while it is built.
            self._decode_fields(plan, raw)
            raise PayloadError(
                f"The payload does not fit {self._type}: {codec.safe_text(error, 500)}"
            ) from None
        arguments = {}
        for name in self._names:
            if (value := getattr(found, name)) is not _UNSET:
                arguments[name] = value
        return self._arranged(arguments) if self._positional_only else ((), arguments)

    def decode_result(self, raw: bytes) -> Any:
        """A stored result, as the function's return annotation says.

        Raises:
            ResultError: the stored value is not of that type.
        """
        _, decoder = self._result or self._result_plan()
        try:
            return decoder.decode(raw)
        except Exception as error:
            # As in decode().
            raise ResultError(
                f"The stored result does not fit the return annotation of {self._type}: "
                f"{codec.safe_text(error, 500)}. Correct the annotation, or the value returned."
            ) from None

    def schema(self, ref_template: str = "#/$defs/{name}") -> dict[str, Any]:
        """JSON Schema (2020-12) of the payload; what it refers to stands under ``$defs``.

        For OpenAPI pass a *ref_template* such as ``#/components/schemas/{name}`` and move ``$defs``.
        """
        plan = self._plan or self._planned()
        properties: dict[str, Any] = {}
        definitions: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            shape = dict(json_schema(plan.hints[name], ref_template, definitions))
            if parameter.default is not _EMPTY:
                shape |= default_schema(parameter.default)
            properties[name] = shape
        schema: dict[str, Any] = {"type": "object", "properties": properties}
        if required := [p.name for p in self._parameters.values() if p.default is _EMPTY]:
            schema["required"] = required
        schema["additionalProperties"] = (
            json_schema(plan.hints[self._extra.name], ref_template, definitions)
            if self._extra
            else False
        )
        return schema | ({"$defs": definitions} if definitions else {})

    def result_schema(self, ref_template: str = "#/$defs/{name}") -> dict[str, Any]:
        """JSON Schema (2020-12) of the result, as :meth:`schema`; ``{}`` when it is not annotated."""
        hint, _ = self._result or self._result_plan()
        definitions: dict[str, Any] = {}
        schema = dict(json_schema(hint, ref_template, definitions))
        return schema | ({"$defs": definitions} if definitions else {})

    # ------------------------------------------------------------ the slow way in

    def _encode_carefully(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bytes:
        given = self._bind(args, kwargs)
        raw = codec.dump(given, max_bytes=self._max_bytes)
        found = self._decode_fields(self._plan or self._planned(), raw)
        if problem := difference(given, found):
            raise self._error([problem])
        return raw

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name, as Python binds them; every misfit is reported, not only the first."""
        positional = [p.name for p in self._parameters.values() if p.kind is not p.KEYWORD_ONLY]
        bound = dict(zip(positional, args, strict=False))
        problems = []
        if len(args) > len(positional):
            problems.append(
                FieldError("", f"takes {len(positional)} positional arguments, got {len(args)}.")
            )
        for name, value in kwargs.items():
            if name in bound:
                problems.append(FieldError(_pointer(name), "is given by position and by name."))
            elif name in self._parameters or self._extra:
                bound[name] = value
            else:
                problems.append(self._unknown(name))
        problems += self._missing(bound)
        if problems:
            raise self._error(problems) from None
        ordered = {name: bound[name] for name in self._names if name in bound}
        return ordered | bound

    def _decode_fields(self, plan: _Plan, raw: bytes) -> dict[str, Any]:
        """Decode each argument by itself, so that every one at fault can be named."""
        try:
            fields = _FIELDS.decode(raw)
        except (ValueError, RecursionError) as error:
            raise self._error([FieldError("", f"is no JSON object: {error}.")]) from None
        problems = self._missing(fields)
        arguments = {}
        for name, value in fields.items():
            decoder = plan.decoders.get(name, plan.extra)
            if decoder is None:
                problems.append(self._unknown(name))
                continue
            try:
                arguments[name] = decoder.decode(value)
            except Exception as error:
                # As in decode().
                problems += field_errors(_pointer(name), error, decoder, value)
        if problems:
            raise self._error(problems) from None
        return arguments

    def _arranged(self, arguments: dict[str, Any]) -> Call:
        """Split off the positional-only ones; a gap before the last of them gets its default."""
        given = [i for i, name in enumerate(self._positional_only) if name in arguments]
        args = tuple(
            arguments.pop(name, self._parameters[name].default)
            for name in self._positional_only[: given[-1] + 1 if given else 0]
        )
        return args, arguments

    def _unknown(self, name: str) -> FieldError:
        takes = ", ".join(self._names) or "no arguments"
        return FieldError(_pointer(name), f"is no parameter: the task takes {takes}.")

    def _missing(self, given: Mapping[str, Any]) -> list[FieldError]:
        return [
            FieldError(_pointer(p.name), "is missing: the task requires it.")
            for p in self._parameters.values()
            if p.default is _EMPTY and p.name not in given
        ]

    def _error(self, problems: list[FieldError]) -> PayloadError:
        text = "; ".join(f"{p.pointer or 'it'} {p.detail.rstrip('.')}" for p in problems[:10])
        return PayloadError(f"The payload does not fit task {self._type}: {text}.", tuple(problems))

    # ------------------------------------------------------------ annotations

    def _planned(self) -> _Plan:
        self._plan = self._resolve()
        return self._plan

    def _resolve(self) -> _Plan:
        hints: dict[str, Any] = {}
        decoders: dict[str, msgspec.json.Decoder[Any]] = {}
        for name, parameter in self._parameters.items():
            hints[name], decoders[name] = self._decoder(name, parameter.annotation)
        extra = None
        if self._extra:
            hints[self._extra.name], extra = self._decoder(self._extra.name, self._extra.annotation)
        struct = struct_of(self._parameters, hints)
        decode = msgspec.json.Decoder(struct, dec_hook=codec.decode_hook).decode
        return _Plan(hints, decoders, extra, struct, decode)

    def _decoder(self, name: str, annotation: Any) -> tuple[Any, msgspec.json.Decoder[Any]]:
        where = f"parameter {name!r} of task {self._type}"
        try:
            hint = resolve(annotation, self._function)
            decoder = msgspec.json.Decoder(hint, dec_hook=codec.decode_hook)
            foreign = foreign_type(hint)
        except NameError as error:
            raise _UnresolvedError(
                f"The annotation of {where} cannot be resolved: {error}. Import the type, or define "
                "it at module level."
            ) from None
        except (TypeError, ValueError) as error:
            raise TaskError(f"The annotation of {where} cannot be used: {error}") from None
        if foreign is not None:
            raise TaskError(
                f"The annotation of {where} names {foreign.__qualname__}, which has no JSON form: "
                "pass plain data, such as an id or a path as str, or a dataclass."
            )
        return hint, decoder

    def _result_plan(self) -> tuple[Any, msgspec.json.Decoder[Any]]:
        """By the return annotation; Any where that says nothing about JSON."""
        try:
            self._result = self._decoder("return", self._return)
        except TaskError:
            self._result = (Any, msgspec.json.Decoder())
        return self._result


_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


class _UnresolvedError(TaskError):
    """An annotation names what is not defined (yet)."""


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


def _pointer(name: str) -> str:
    return "/" + codec.pointer_token(name)
