"""Parameters: what a tool takes, as its function's signature says; and the check of what it is given."""

from __future__ import annotations

import functools
import inspect
import types
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, create_model
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from runstream.runner.context.value import ExecutionContext
from runstream.runner.errors import ToolArgumentsInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic.json_schema import JsonSchemaWarningKind

#: What pydantic raises for a type that it has no schema for.
_NO_SCHEMA: Final = (PydanticUserError, PydanticUndefinedAnnotation)
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

Checked: TypeAlias = dict[str, Any]


class Parameters:
    """The parameters of one function: the arguments, which are given as JSON, and those that are given the context."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        """Read a signature. TypeError, naming the parameter, for what cannot be given as JSON, or by name."""
        self._name = name
        self._required: set[str] = set()
        self._arguments: list[str] = []
        #: The parameters that are given the context.
        self.of_context: list[str] = []
        fields = self._fields(function)
        try:
            self._model = create_model("Arguments", __config__=ConfigDict(extra="forbid"), **fields)
            schema = self._model.model_json_schema(schema_generator=_Untitled)
        except _NO_SCHEMA as error:
            raise TypeError(self._complaint(fields, error)) from error
        schema.pop("title", None)
        #: The JSON schema of the arguments: an object, and nothing else in it.
        self.schema: dict[str, Any] = schema

    def check(self, given: Mapping[str, object]) -> Checked:
        """Return the arguments as the function takes them. ToolArgumentsInvalid names every one that is wrong."""
        try:
            checked = self._model.model_validate(given if isinstance(given, dict) else dict(given))
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
            raise ToolArgumentsInvalid(self._name, [(_place(each["loc"]), each["msg"]) for each in found]) from None
        # What was not given is left to the function's own default.
        return {
            name: getattr(checked, field)
            for name, field in zip(self._arguments, type(checked).model_fields, strict=True)
            if name in self._required or field in checked.model_fields_set
        }

    def _fields(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return the fields of the model, numbered: a parameter may have a name that a model's field may not."""
        fields: dict[str, Any] = {}
        annotations = self._annotations(function)
        for name, parameter in inspect.signature(function).parameters.items():
            self._check_kind(parameter)
            if _is_context(annotations[name]):
                self.of_context.append(name)
                continue
            default = Field(alias=name)
            if parameter.default is inspect.Parameter.empty:
                self._required.add(name)
            else:
                default = Field(default=parameter.default, alias=name)
            fields[f"argument_{len(fields)}"] = (annotations[name], default)
            self._arguments.append(name)
        return fields

    def _annotations(self, function: Callable[..., Any]) -> dict[str, Any]:
        """Return the type of each parameter; annotations that are texts are read in the function's module."""
        parameters = inspect.signature(function).parameters
        written = {name: each.annotation for name, each in parameters.items()}
        if bare := [name for name, annotation in written.items() if annotation is inspect.Parameter.empty]:
            raise TypeError(f"the tool {self._name!r} does not say of which type its parameter {bare[0]!r} is")
        # A module may import the context for type checkers alone.
        known = {"ExecutionContext": ExecutionContext, **_globals(function)}
        holder = types.SimpleNamespace(__annotations__=written)
        try:
            return get_type_hints(holder, known, include_extras=True)
        except NameError as error:
            raise TypeError(
                f"the tool {self._name!r} has a parameter whose type names {error.name!r}, which its module does not"
                " have when it runs: import it outside of `if TYPE_CHECKING`"
            ) from error

    def _check_kind(self, parameter: inspect.Parameter) -> None:
        if parameter.kind not in _BY_NAME:
            raise TypeError(f"the tool {self._name!r} is given its arguments by name, which {parameter} cannot be")
        if isinstance(parameter.default, FieldInfo):
            raise TypeError(
                f"the tool {self._name!r} has a Field as the default of its parameter {parameter.name!r}; write"
                " Annotated[TYPE, Field(…)] instead"
            )

    def _complaint(self, fields: dict[str, Any], error: Exception) -> str:
        for name, (annotation, _) in zip(self._arguments, fields.values(), strict=True):
            try:
                TypeAdapter(annotation).json_schema(schema_generator=_Untitled)
            except _NO_SCHEMA:
                shown = inspect.formatannotation(annotation)
                return f"the tool {self._name!r} cannot be given its parameter {name!r} as JSON: its type is {shown}"
        return f"the tool {self._name!r} cannot be given its arguments as JSON: {error}"


class _Untitled(GenerateJsonSchema):
    """Leaves out titles, which say in other words what the names say, and defaults that JSON cannot hold."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # as pydantic has it

    def field_title_should_be_set(self, schema: object) -> bool:
        """Never."""
        _ = schema
        return False


def _globals(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that a function's module has."""
    found: Any = function
    while isinstance(found, functools.partial):
        found = found.func
    found = inspect.unwrap(found)
    if not hasattr(found, "__globals__") and not inspect.ismethod(found):
        found = getattr(type(found), "__call__", found)  # noqa: B004  # of an object that is called
    names: dict[str, Any] = getattr(getattr(found, "__func__", found), "__globals__", {})
    return names


def _is_context(annotation: object) -> bool:
    """Tell whether a parameter is given the context: ExecutionContext, or that or None."""
    origin, within = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_context(within[0])
    if origin in (Union, types.UnionType):
        return ExecutionContext in within and set(within) <= {ExecutionContext, type(None)}
    return annotation is ExecutionContext


def _place(parts: tuple[int | str, ...]) -> str:
    """Write where in the arguments something is, as in `people[0].name`."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
