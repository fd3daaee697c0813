"""Stand-ins for TensorRT's classes, generated from its real Python bindings.

A stand-in has exactly the attributes of the class it stands for. A call is checked against the signatures that the
bindings state (number, names and types of the arguments), recorded, and answered with a value of the stated type, or
with what the test put into ``answers``. Enums, ``nptype`` and the logger's base are the real ones.
"""

import re
from types import ModuleType
from typing import Any

_SIGNATURE = re.compile(r"(?:^|\n)(?:\d+\. )?\w+\((self: [^\n]*|arg0: [^\n]*|)\) -> ([^\n]+)")


class Bindings:
    """The module that the code imports as ``tensorrt``.

    Attributes:
        calls: every call, as "Class.method", in order.
        assigned: every property that was set, by "Class.property".
        answers: what "Class.member" gives: a value, or a function of the call's arguments.
    """

    def __init__(self, real: ModuleType) -> None:
        self.real, self.calls, self.assigned, self.answers = real, [], {}, {}

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if not isinstance(value, type) or hasattr(value, "__members__") or name == "ILogger":
            return value
        return lambda *arguments, **named: self._construct(name, value, arguments, named)

    def _construct(
        self, name: str, real: type, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> "StandIn":
        made = StandIn(self, real)
        self.checked(f"{name}.__init__", real.__init__.__doc__, (made, *arguments), named)
        return made

    def checked(self, call: str, doc: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> str:
        """Record a call; returns the return type of the signature that it fits."""
        self.calls.append(call)
        signatures = [(_parameters(found), returned) for found, returned in _SIGNATURE.findall(doc)]
        reasons = [self._misfit(parameters, arguments, named) for parameters, _ in signatures]
        for reason, (_, returned) in zip(reasons, signatures, strict=True):
            if reason is None:
                return returned.strip()
        raise TypeError(f"{call} does not take these arguments: {reasons or doc}")

    def _misfit(
        self, parameters: list[tuple[str, str, bool]], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> str | None:
        names = [name for name, _, _ in parameters]
        if len(arguments) > len(names):
            return f"{len(arguments)} arguments for {names}"
        given = dict(zip(names, arguments, strict=False))
        if unknown := set(named) - set(names) | set(named) & set(given):
            return f"no room for {unknown}"
        given |= named
        for name, annotation, has_default in parameters:
            if name not in given:
                if not has_default:
                    return f"{name} is missing"
            elif not self._fits(given[name], annotation):
                return f"{name} is {given[name]!r}, expected {annotation}"
        return None

    def _fits(self, value: Any, annotation: str) -> bool:
        if annotation == "typing.SupportsInt":
            return hasattr(value, "__int__")
        if annotation in ("str", "bool", "tuple"):
            return type(value).__name__ == annotation
        if annotation.endswith("Buffer"):
            return isinstance(value, bytes | bytearray | memoryview)
        name = annotation.rpartition(".")[2]
        real = getattr(self.real, name, None)
        if name == "Dims":
            return isinstance(value, tuple | list) and all(isinstance(size, int) for size in value)
        if isinstance(value, StandIn):
            return value._real is real
        return not isinstance(real, type) or isinstance(value, real)

    def value_of(self, annotation: str) -> Any:
        """Something of a return type."""
        name = annotation.rpartition(".")[2]
        plain = {"int": 1, "bool": True, "str": "name", "None": None, "typing.SupportsInt": 1}
        if annotation in plain:
            return plain[annotation]
        if name == "IHostMemory":
            return b"plan"
        real = getattr(self.real, name, None)
        if isinstance(real, type):
            return (
                next(iter(real.__members__.values())) if hasattr(real, "__members__") else StandIn(self, real)
            )
        raise LookupError(f"put an answer for {annotation} into answers")


class StandIn:
    """One object of a class of the bindings."""

    def __init__(self, bindings: Bindings, real: type) -> None:
        self.__dict__.update(_bindings=bindings, _real=real)

    def __getattr__(self, name: str) -> Any:
        member, key = getattr(self._real, name), f"{self._real.__name__}.{name}"
        if isinstance(member, property):
            if key in self._bindings.answers:
                return self._bindings.answers[key]
            return self._bindings.value_of(re.search(r"-> (.+)", member.fget.__doc__).group(1).strip())
        return lambda *arguments, **named: self._call(key, member.__doc__, arguments, named)

    def __setattr__(self, name: str, value: Any) -> None:
        member = getattr(self._real, name)
        if not isinstance(member, property) or member.fset is None:
            raise AttributeError(f"{self._real.__name__}.{name} cannot be set")
        self._bindings.assigned[f"{self._real.__name__}.{name}"] = value

    def _call(self, key: str, doc: str, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        returned = self._bindings.checked(key, doc, (self, *arguments), named)
        if key in self._bindings.answers:
            answer = self._bindings.answers[key]
            return answer(*arguments) if callable(answer) else answer
        return self._bindings.value_of(returned)


def _parameters(text: str) -> list[tuple[str, str, bool]]:
    """Name, annotation and whether there is a default, of every parameter; brackets may hold commas."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text + ","):
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    found = []
    for part in filter(None, parts):
        name, _, annotation = part.partition(":")
        annotation, equals, _ = annotation.partition(" = ")
        found.append((name.strip(), annotation.strip(), bool(equals)))
    return found
