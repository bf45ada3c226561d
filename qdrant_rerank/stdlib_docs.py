"""The docstrings of the running Python's standard library, as a corpus to search.

Several thousand real documents that are on every machine: no download, no licence to
check, and every reader can judge the answers. The demo and the benchmarks use them.

A document is a public module, class, function, method or property with a docstring. It
goes by its shortest public name (``json.JSONDecoder``, not ``json.decoder.JSONDecoder``;
``heapq.heappush``, not ``_heapq.heappush``), once, whatever its aliases. Members are listed
under the class that defines them, or that inherits them from a private one. Dunder
methods are left out (most say no more than ``Return self+value.``), except that the
docstring of ``__init__`` is appended to that of its class.

Pure-Python modules are parsed, never run, so reading them changes nothing. Modules written
in C are imported, because their docstrings are nowhere else, and so are those in
``BUILT_AT_RUN_TIME``. None of these prints, starts a thread or sets a signal handler.
"""

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from qdrant_rerank._stdlib_modules import (
    Definition,
    Module,
    Reference,
    imported_module,
    parsed_module,
)

__all__ = ["standard_library_documents"]

# Modules that fill themselves by code (random.choice is a bound method, os.stat comes from
# posix or nt). The interpreter loads most of them at start; the others only define things.
BUILT_AT_RUN_TIME = frozenset(
    ["builtins", "hashlib", "multiprocessing", "os", "random", "re", "signal", "threading", "types"]
)
# What an import would show (readline writes to the terminal), what is internal, and what
# newer Pythons removed, so that the corpus differs less from one version to the next.
SKIPPED = frozenset(
    [
        "__phello__",
        "antigravity",
        "encodings",
        "ensurepip",
        "genericpath",
        "idlelib",
        "lib2to3",
        "nt",
        "ntpath",
        "nturl2path",
        "opcode",
        "posix",
        "posixpath",
        "pydoc_data",
        "readline",
        "sre_compile",
        "sre_constants",
        "sre_parse",
        "test",
        "this",
        "turtledemo",
        "xxlimited",
        "xxlimited_35",
        "xxsubtype",
        "aifc",
        "asynchat",
        "asyncore",
        "audioop",
        "cgi",
        "cgitb",
        "chunk",
        "crypt",
        "distutils",
        "imghdr",
        "imp",
        "mailcap",
        "msilib",
        "nis",
        "nntplib",
        "ossaudiodev",
        "pipes",
        "smtpd",
        "sndhdr",
        "spwd",
        "sunau",
        "telnetlib",
        "uu",
        "xdrlib",
    ]
)
_SKIPPED_PARTS = frozenset({"test", "tests"})
_SOURCES = Path(sysconfig.get_path("stdlib"))
_MAX_HOPS = 20  # references followed for one name; more is a cycle

_Key = tuple[str, str]


def standard_library_documents() -> list[dict[str, str]]:
    """Read the docstrings of this Python's standard library; takes a few seconds.

    Returns:
        One mapping a document, in order of name, each name once, with these keys:
        ``name`` (``json.dumps``, ``pathlib.Path.glob``; built-ins as one writes them,
        ``str.split``), ``kind`` (``module``, ``class``, ``function``, ``method`` or
        ``property``), ``signature`` (``(obj, *, skipkeys=False)``, without ``self``; that
        of the constructor for a class; empty if there is none) and ``text`` (the
        docstring, without its indentation).

    Examples:
        >>> by_name = {document["name"]: document for document in standard_library_documents()}
        >>> by_name["textwrap.shorten"]["signature"]
        '(text, width, **kwargs)'
    """
    library = _Library()
    modules = [module for name in _public_modules() if (module := library.load(name))]
    documents = {
        name: {"name": name, "kind": it.kind, "signature": it.signature, "text": it.text.strip()}
        for name, it in library.definitions(modules)
    }
    for module in modules:
        documents[module.name] = {
            "name": module.name,
            "kind": "module",
            "signature": "",
            "text": module.text.strip(),
        }
    return [documents[name] for name in sorted(documents) if documents[name]["text"]]


def _public_modules() -> Iterator[str]:
    """Names of the public modules, a package before what is in it."""
    for top in sorted(sys.stdlib_module_names - SKIPPED):
        if top.startswith("_"):
            continue
        yield top
        if top == "os":
            yield "os.path"
        folder = _SOURCES / top
        for path in sorted(folder.rglob("*.py")) if folder.is_dir() else ():
            parts = path.relative_to(_SOURCES).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if len(parts) > 1 and not any(p.startswith("_") or p in _SKIPPED_PARTS for p in parts):
                yield ".".join(parts)


class _Library:
    """The modules read so far, and what a name in one of them stands for."""

    def __init__(self) -> None:
        self._modules: dict[str, Module | None] = {}

    def load(self, name: str) -> Module | None:
        """Read a module, once; None if this Python has none of that name."""
        if name not in self._modules:
            stem = _SOURCES.joinpath(*name.split("."))
            sources = [stem / "__init__.py", stem.with_name(f"{stem.name}.py")]
            if name == "os.path":
                sources = [Path(os.path.__file__)]
            source = next((path for path in sources if path.is_file()), None)
            if source is None or name in BUILT_AT_RUN_TIME:
                self._modules[name] = imported_module(name)
            else:
                is_package = source.name == "__init__.py"
                module = Module(name, name if is_package else name.rpartition(".")[0])
                self._modules[name] = module
                parsed_module(source, module, self._exported)
        return self._modules[name]

    def _exported(self, name: str) -> list[str]:
        module = self.load(name)
        return module.exported() if module else []

    def resolve(self, module: str, dotted: str, hops: int = 0) -> Definition | str | None:
        """What a dotted name in a module stands for: a definition, or a module by name."""
        loaded = self.load(module)
        if loaded is None or hops > _MAX_HOPS:
            return None
        if not dotted:
            return module
        head, _, rest = dotted.partition(".")
        found = loaded.bindings.get(head)
        target: Definition | str | None
        if isinstance(found, Reference):
            target = self.resolve(found.module, found.name, hops + 1)
        else:
            target = found
        submodule = f"{module}.{head}"
        if target is None and loaded.package == module and self.load(submodule):
            target = submodule
        if isinstance(target, str):
            return self.resolve(target, rest, hops + 1)
        return target.members.get(rest) if target and rest else target

    def definitions(self, modules: list[Module]) -> Iterator[tuple[str, Definition]]:
        """Every public definition under its best name, with its members."""
        classes = dict(self._homes(self._offers(modules)))
        public = {it.key for it in classes.values()}
        yield from classes.items()
        members: list[tuple[str, str, Definition]] = []
        ...
