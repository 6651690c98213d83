"""What a function takes, as a pydantic model made from its signature and annotations."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.errors import PydanticUserError

from batchd.domain.job import JsonObject, JsonValue
from batchd.jobs.targets import TargetInvalid

_CONTEXT = "context"
_CONTEXT_TYPE = "JobContext"
_TEXTS = {"missing": "is missing", "extra_forbidden": "is no argument of the function"}


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with an argument; `key` is its dotted path from its name on."""

    key: str
    message: str
    is_missing: bool = False


class Signature:
    """The arguments of one function. Any thread may use it.

    Its first parameter is the `JobContext` when it is called `context` or annotated so; all others are arguments,
    passed by name. An argument without an annotation takes any JSON.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        """Read the signature; raises TargetInvalid for one that cannot be called with names, or read at all."""
        self._name = name
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError) as error:
            raise TargetInvalid(f"{name} does not say what it takes: {error}", retryable=False) from error
        self.wants_context = bool(parameters) and _is_context(parameters[0])
        own = parameters[1:] if self.wants_context else parameters
        for parameter in own:
            if parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty:
                raise TargetInvalid(
                    f"{name}: {parameter.name} can only be passed by position, and arguments are passed by name",
                    hint="remove the / from its parameters",
                    retryable=False,
                )
        self._ordered = [each.name for each in own if each.kind is each.POSITIONAL_OR_KEYWORD]
        named = [each for each in own if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}]
        takes_any = any(each.kind is each.VAR_KEYWORD for each in own)
        self._fields = {f"argument_{index}": each.name for index, each in enumerate(named)}
        self._model = self._made(function, named, takes_any=takes_any)

    def complaints(self, arguments: Mapping[str, Any]) -> Sequence[Complaint]:
        """Return everything that is wrong with the arguments; never the value itself, it may be a secret."""
        try:
            self._model.model_validate(dict(arguments))
        except ValidationError as error:
            return [
                Complaint(
                    ".".join(str(part) for part in fault["loc"]),
                    _TEXTS.get(fault["type"], fault["msg"].removeprefix("Value error, ")),
                    is_missing=fault["type"] == "missing" and len(fault["loc"]) == 1,
                )
                for fault in error.errors(include_url=False, include_input=False)
            ]
        return ()

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return what to call the function with, by name; raises TargetInvalid with everything that does not fit.

        Arguments that are not given are left to the function's own defaults.
        """
        model = self._validated(arguments)
        given = {self._fields[field]: getattr(model, field) for field in model.model_fields_set & self._fields.keys()}
        return given | (model.model_extra or {})

    def stored(self, arguments: Mapping[str, Any]) -> JsonObject:
        """Return the arguments as JSON, from which `values` makes them again; raises TargetInvalid."""
        try:
            found: dict[str, JsonValue] = self._validated(arguments).model_dump(
                mode="json", by_alias=True, exclude_unset=True
            )
        except ValueError as error:
            raise TargetInvalid(
                f"{self._name}: an argument cannot be stored as JSON: {error}", retryable=False
            ) from error
        return found

    def named(self, positional: Sequence[Any], by_name: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call, all by name; raises TypeError as the call itself would."""
        if len(positional) > len(self._ordered):
            raise TypeError(f"{self._name} takes {len(self._ordered)} arguments by position, not {len(positional)}")
        first = dict(zip(self._ordered, positional, strict=False))
        twice = first.keys() & by_name.keys()
        if twice:
            raise TypeError(f"{self._name} got two values for {', '.join(sorted(twice))}")
        return {**first, **by_name}

    def _validated(self, arguments: Mapping[str, Any]) -> BaseModel:
        complaints = self.complaints(arguments)
        if complaints:
            said = "; ".join(f"{each.key}: {each.message}" for each in complaints)
            takes = ", ".join(self._fields.values()) or "no arguments"
            raise TargetInvalid(
                f"{self._name} does not take these arguments: {said}", hint=f"it takes: {takes}", retryable=False
            )
        return self._model.model_validate(dict(arguments))

    def _made(
        self, function: Callable[..., Any], named: Sequence[inspect.Parameter], *, takes_any: bool
    ) -> type[BaseModel]:
        config = ConfigDict(extra="allow" if takes_any else "forbid", arbitrary_types_allowed=True)
        fields: dict[str, Any] = {}
        for field, parameter in zip(self._fields, named, strict=True):
            default = ... if parameter.default is parameter.empty else parameter.default
            # The field has a name of its own: a parameter may well be called `json` or `_x`, which a model's may not.
            fields[field] = (self._annotation(function, parameter), Field(default, alias=parameter.name))
        try:
            model: type[BaseModel] = create_model("Arguments", __config__=config, **fields)
        except (PydanticUserError, TypeError) as error:
            said = str(error).splitlines()[0]
            raise TargetInvalid(f"{self._name}: an annotation cannot be checked: {said}", retryable=False) from error
        return model

    def _annotation(self, function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
        if parameter.annotation is parameter.empty:
            return Any
        # One by one: a name that only a type checker imports must not spoil the others.
        alone: Any = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        names = getattr(inspect.unwrap(function), "__globals__", {})
        try:
            return typing.get_type_hints(alone, globalns=names, include_extras=True)[parameter.name]
        except (NameError, TypeError, AttributeError, SyntaxError) as error:
            raise TargetInvalid(
                f"{self._name}: the annotation of {parameter.name} cannot be read: {error}",
                hint="import what it names at run time too, not only under TYPE_CHECKING",
                retryable=False,
            ) from error


def _is_context(parameter: inspect.Parameter) -> bool:
    annotation = parameter.annotation
    said = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return parameter.name == _CONTEXT or said.rpartition(".")[2] == _CONTEXT_TYPE
