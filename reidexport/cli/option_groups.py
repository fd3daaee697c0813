"""Options that several commands share, written once: a dataclass whose fields are options."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints


def with_option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose parameters of dataclass types are, for Typer, an option for each of their fields.

    Args:
        command: takes ``name: Group`` where ``Group`` is a dataclass with fields ``field: Annotated[type,
            Option(...)] = default``; a field without a default is an option that must be given.
    """
    hints = get_type_hints(command, include_extras=True)
    hints.pop("return", None)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        group = groups.get(name)
        if group is None:
            options = {name: (hints[name], parameter.default)}
        else:
            types = get_type_hints(group, include_extras=True)
            options = {
                field.name: (
                    types[field.name],
                    parameter.empty if field.default is MISSING else field.default,
                )
                for field in fields(group)
            }
        parameters += [
            inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for option, (annotation, default) in options.items()
        ]

    @wraps(command)
    def grouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        command(**values)

    vars(grouped)["__signature__"] = inspect.Signature(parameters)
    grouped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return grouped
