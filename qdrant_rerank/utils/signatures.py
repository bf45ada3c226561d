"""Which calls an object takes, by the signatures of its methods; nothing is called."""

import inspect
from collections.abc import Callable
from typing import Any

__all__ = [
    "argument_names",
    "binds",
    "default_of",
    "first_annotation",
    "is_async",
    "signature_of",
    "takes",
    "takes_anything",
]


def signature_of(value: Any, method: str = "") -> inspect.Signature | None:
    """Return the signature of a method, or of the object itself; None if Python knows none."""
    function = getattr(value, method, None) if method else value
    if not callable(function):
        return None
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None


def argument_names(function: Callable[..., Any]) -> list[str]:
    """Return the names of a function's arguments in order; none if Python does not know them.

    >>> argument_names(lambda query, *texts, top=3: None)
    ['query', 'top']
    """
    signature = signature_of(function)
    parameters = [] if signature is None else signature.parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.kind not in variable]


def binds(function: Callable[..., Any], *arguments: Any, **named: Any) -> bool:
    """Return whether a function can be called with these arguments.

    A function whose signature Python does not know counts as one that takes any by position.

    >>> binds(len, []), binds(len, [], []), binds(lambda *, top: top, top=3)
    (True, False, True)
    """
    signature = signature_of(function)
    if signature is None:
        return not named
    try:
        signature.bind(*arguments, **named)
    except TypeError:
        return False
    return True


def takes(value: Any, method: str, *arguments: Any, keywords: tuple[str, ...] = ()) -> bool:
    """Return whether a method can be called with these arguments by position and by name.

    A name must be in the signature: one that only ``**kwargs`` would take is not taken.

    Args:
        value: the object.
        method: name of the method; "" for the object itself.
        arguments: as many as are passed by position.
        keywords: names of the arguments that are passed by name.

    >>> takes(str.split, "", "a b", keywords=("maxsplit",)), takes("a", "upper", "b")
    (True, False)
    """
    signature = signature_of(value, method)
    if signature is None or not set(keywords) <= set(signature.parameters):
        return False
    function = getattr(value, method) if method else value
    return binds(function, *arguments, **dict.fromkeys(keywords))


def takes_anything(value: Any) -> bool:
    """Return whether an object is called with ``*args`` alone, which tells nothing; no function is.

    >>> takes_anything(print), takes_anything(lambda *texts: texts)
    (False, False)
    """
    signature = signature_of(value)
    parameters = [] if signature is None else list(signature.parameters.values())
    variable = bool(parameters) and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL
    return variable and not inspect.isroutine(value)


def default_of(value: Any, method: str, argument: str) -> Any:
    """Return the default of a method's argument; None if there is no such argument or default."""
    signature = signature_of(value, method)
    parameter = None if signature is None else signature.parameters.get(argument)
    default = None if parameter is None else parameter.default
    return None if default is inspect.Parameter.empty else default


def is_async(value: Any, method: str = "") -> bool:
    """Return whether a method, or the object itself if it is called, is a coroutine function."""
    function: Callable[..., Any] | None = getattr(value, method, None) if method else value
    return inspect.iscoroutinefunction(function) or (
        not method
        and not inspect.isclass(value)
        and inspect.iscoroutinefunction(getattr(value, "__call__", None))  # noqa: B004
    )


def first_annotation(value: Any) -> Any:
    """Return the annotation of a function's first parameter; None if it has none."""
    signature = signature_of(value)
    parameters = [] if signature is None else list(signature.parameters.values())
    found = parameters[0].annotation if parameters else inspect.Parameter.empty
    return None if found is inspect.Parameter.empty else found
