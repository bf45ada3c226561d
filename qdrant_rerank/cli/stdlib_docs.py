"""The docstrings of the running Python's standard library, as a corpus to search.

These are several thousand real documents that each machine has. They need no download and no
license, and each reader can judge the answers. Only the demo uses them, and examples.

A document is a public module, class, function, method or property with a docstring. Its name is its
shortest public name (``json.JSONDecoder``, not ``json.decoder.JSONDecoder``). It occurs once, even
if it has aliases. Dunder methods are left out: most say only ``Return self+value``.
"""

import importlib
import inspect
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

__all__ = ["standard_library_documents"]

# Modules whose import shows or starts something, internal modules, and modules that newer Pythons
# removed: the corpus differs little from one version to the next.
SKIPPED = frozenset(
    "antigravity encodings ensurepip genericpath idlelib lib2to3 nt ntpath nturl2path opcode posix "
    "posixpath pydoc_data readline sre_compile sre_constants sre_parse test this turtledemo "
    "xxlimited xxlimited_35 xxsubtype "
    "aifc asynchat asyncore audioop cgi cgitb chunk crypt distutils imghdr imp mailcap msilib nis "
    "nntplib ossaudiodev pipes smtpd sndhdr spwd sunau telnetlib uu xdrlib".split()
)
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def standard_library_documents() -> list[dict[str, str]]:
    """Read the docstrings of this Python's standard library; takes about two seconds.

    Imports each public module. A module that cannot be imported (``tkinter`` without Tk) is left
    out.

    Returns:
        One mapping per document, in order of name, each name once: ``name`` (``json.dumps``,
        ``pathlib.Path.glob``, ``str.split``), ``kind`` (module, class, function, method or
        property), ``signature`` (``(obj, *, skipkeys=False)``, without ``self``; empty if there is
        none), and ``text``, the docstring without its indentation.

    Examples:
        >>> by_name = {document["name"]: document for document in standard_library_documents()}
        >>> by_name["textwrap.shorten"]["signature"]
        '(text, width, **kwargs)'
    """
    modules = [module for name in _module_names() if (module := _imported(name)) is not None]
    documents = {}
    taken: dict[int, str] = {}
    for module in modules:
        for name, value in _public(module):
            full = name if module.__name__ == "builtins" else f"{_name_of(module)}.{name}"
            key = _identity(value)
            if key not in taken or _rank(full, value) < _rank(taken[key], value):
                taken[key] = full
    named = {name: key for key, name in taken.items()}
    for module in modules:
        documents[_name_of(module)] = _document(_name_of(module), "module", module)
        for name, value in _public(module):
            full = name if module.__name__ == "builtins" else f"{_name_of(module)}.{name}"
            if named.get(full) != _identity(value):
                continue
            documents[full] = _document(full, _kind(value), value)
            if inspect.isclass(value):
                for member, (kind, part) in _members(value).items():
                    if _identity(part) not in taken:
                        documents[f"{full}.{member}"] = _document(f"{full}.{member}", kind, part)
    return [documents[name] for name in sorted(documents) if documents[name]["text"]]


def _module_names() -> Iterator[str]:
    for top in sorted(sys.stdlib_module_names - SKIPPED):
        if top.startswith("_"):
            continue
        yield top
        if top == "os":
            yield "os.path"
        module = _imported(top)
        for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{top}."):
            parts = found.name.split(".")
            if not any(part.startswith("_") or part in {"test", "tests"} for part in parts):
                yield found.name


def _imported(name: str) -> ModuleType | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated modules say so on import
        try:
            return importlib.import_module(name)
        except Exception:  # it is for another platform, or needs a library that is not there
            return None


def _name_of(module: ModuleType) -> str:
    return "os.path" if module.__name__ in {"posixpath", "ntpath"} else module.__name__


def _public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Yield the classes and functions of a module: those in ``__all__``, or its own."""
    declared = getattr(module, "__all__", None)
    names = vars(module) if declared is None else declared
    for name in sorted(names):
        value = getattr(module, name, None)
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isroutine(value)):
            continue
        home = getattr(value, "__module__", None) or ""
        own = home.lstrip("_").split(".")[0] == module.__name__.split(".")[0]
        if declared is not None or own or module.__name__ in {"builtins", "os"}:
            yield name, value


def _members(owner: type) -> dict[str, tuple[str, Any]]:
    """Return public methods and properties of a class, and of its private base classes."""
    found: dict[str, tuple[str, Any]] = {}
    for base in owner.__mro__:
        private = base.__name__.startswith("_") or base.__module__.startswith("_")
        if base is not owner and not private:
            continue
        for name, raw in vars(base).items():
            value = getattr(raw, "__func__", raw)  # class and static methods
            if name.startswith("_") or name in found:
                continue
            if inspect.isroutine(value):
                found[name] = ("method", value)
            elif isinstance(value, property) or inspect.isdatadescriptor(value):
                found[name] = ("property", value)
    return found


def _identity(value: Any) -> int:
    """Return what is equal for two names of one thing; ``random.choice`` is a bound method."""
    return id(getattr(value, "__func__", value))


def _rank(name: str, value: Any) -> tuple[int, bool, int, str]:
    """Sort the names of one thing, best first: ``OSError`` before its alias ``IOError``."""
    alias = name.rpartition(".")[2] != getattr(value, "__name__", "")
    return name.count("."), alias, len(name), name


def _kind(value: Any) -> str:
    return "class" if inspect.isclass(value) else "function"


def _document(name: str, kind: str, value: Any) -> dict[str, str]:
    text = value.__doc__
    if kind == "class" and value.__doc__ is object.__doc__:
        text = None
    return {
        "name": name,
        "kind": kind,
        "signature": _signature(kind, value),
        "text": inspect.cleandoc(text) if isinstance(text, str) else "",
    }


def _signature(kind: str, value: Any) -> str:
    if kind in {"module", "property"}:
        return ""
    try:
        signature = inspect.signature(value)
    except Exception:  # a function written in C may have none, or one that cannot be evaluated
        return ""
    parameters = list(signature.parameters.values())
    if kind == "method" and parameters and parameters[0].name in {"self", "cls"}:
        signature = signature.replace(parameters=parameters[1:])
    return _ADDRESS.sub("", str(signature))
