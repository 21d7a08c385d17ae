"""What a model is told about a function, read from its signature and docstring."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from langchain_core.tools import BaseTool, create_schema_from_function
from langchain_core.utils.function_calling import convert_to_openai_function
from pydantic import BaseModel

from bursar.budget.errors import UsageError

__all__ = ["function_arguments", "openai_function"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def function_arguments(function: Callable[..., Any], name: str) -> type[BaseModel]:
    """A pydantic model of the function's parameters, with the docstring as its own.

    Raises UsageError for a function that cannot be described to a model: no docstring, a parameter without a name or
    a type, a type that JSON Schema cannot express.
    """
    _check_signature(function, name)
    try:
        with warnings.catch_warnings():
            # The model's class is only ever read field by field, so a parameter may be called `json` or `schema`.
            warnings.filterwarnings("ignore", message="Field name", category=UserWarning)
            arguments = create_schema_from_function(name, function, parse_docstring=True)
        if not issubclass(arguments, BaseModel):
            raise TypeError("pydantic.v1 types are not read")
    except Exception as error:
        raise _indescribable(name, error) from error
    if hidden := [key for key in inspect.signature(function).parameters if key not in arguments.model_fields]:
        raise UsageError(
            f"tool {name!r}: a parameter cannot be called {hidden[0]!r}", next_step="give the parameter another name"
        )
    return arguments


def openai_function(source: type[BaseModel] | BaseTool, name: str) -> dict[str, Any]:
    """`{"name", "description", "parameters"}` of a function's arguments or a LangChain tool; no unknown keys.

    Raises UsageError for a type that JSON Schema cannot express.
    """
    try:
        function = convert_to_openai_function(source)
    except Exception as error:
        raise _indescribable(name, error) from error
    parameters = {"type": "object", "properties": {}, "additionalProperties": False, **function.get("parameters", {})}
    return {"name": name, "description": function.get("description", ""), "parameters": parameters}


def _indescribable(name: str, error: Exception) -> UsageError:
    """One error for the many classes that pydantic and LangChain raise for a type they cannot describe."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return UsageError(
        f"tool {name!r}: its parameters cannot be described to a model: {reason}",
        next_step="use str, int, float, bool, list, dict or pydantic models, imported at run time",
    )


def _check_signature(function: Callable[..., Any], name: str) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise UsageError(f"tool {name!r} yields, but a tool gives one result", next_step="return a list")
    if not inspect.getdoc(function):
        raise UsageError(
            f"tool {name!r} has no docstring, which tells the model what the tool does",
            next_step='add one below its def line: """Look an order up by its number."""',
        )
    for key, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in _NAMED:
            raise UsageError(
                f"tool {name!r}: parameter {key!r} cannot be given by name, as a model gives it",
                next_step="declare each parameter by name, without *, ** or /",
            )
        if parameter.annotation is inspect.Parameter.empty:
            raise UsageError(
                f"tool {name!r}: parameter {key!r} has no type, which tells the model what to write",
                next_step=f"annotate it, such as {key}: str",
            )
