"""One module of the standard library: what it binds, re-exports and says of itself.

:func:`parsed_module` reads source and runs none of it; :func:`imported_module` inspects a
module written in C. Both fill the same tables. What a name stands for across modules is
worked out in :mod:`qdrant_rerank.stdlib_docs`.
"""

import ast
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import GetSetDescriptorType, MemberDescriptorType
from typing import Any

__all__ = ["Definition", "Module", "Reference", "imported_module", "parsed_module"]

_DATA = (property, GetSetDescriptorType, MemberDescriptorType)


@dataclass(frozen=True, slots=True)
class Reference:
    """A dotted name to look up in a module; the module itself if the name is empty."""

    module: str
    name: str


@dataclass(slots=True)
class Definition:
    """A class, function, method or property."""

    key: tuple[str, str]  # module and qualified name where it was written: equal for aliases
    kind: str
    signature: str
    text: str
    members: "dict[str, Definition]" = field(default_factory=dict)
    bases: list[Reference] = field(default_factory=list)


Binding = Definition | Reference


@dataclass(slots=True)
class Module:
    """What a module binds, in order; what is bound last wins, as when it runs."""

    name: str
    package: str
    text: str = ""
    bindings: dict[str, Binding] = field(default_factory=dict)
    declared: list[str] | None = None  # __all__, as far as it can be read
    reexported: list[str] = field(default_factory=list)  # from private modules, or by a star

    def own(self) -> list[str]:
        """Public names that are written here."""
        found = [name for name, it in self.bindings.items() if isinstance(it, Definition)]
        return [name for name in found if not name.startswith("_")]

    def exported(self) -> list[str]:
        """What a star import brings."""
        if self.declared is not None:
            return self.declared
        return [*self.own(), *(name for name in self.reexported if not name.startswith("_"))]


def parsed_module(source: Path, module: Module, exported: Callable[[str], list[str]]) -> None:
    """Fill a module from its source.

    Args:
        source: the file.
        module: an empty module; filled as reading goes, so that an import cycle finds what
            it would find at run time.
        exported: what a star import from a module of that name brings.
    """
    tree = ast.parse(source.read_bytes())
    module.text = ast.get_docstring(tree) or ""
    parser = _Parser(module, exported)
    for statement in tree.body:
        parser.read(statement)


class _Parser:
    def __init__(self, module: Module, exported: Callable[[str], list[str]]) -> None:
        self._module = module
        self._exported = exported

    def read(self, node: ast.stmt, *, fallback: bool = False) -> None:
        """Bind what a statement binds; a fallback only what is not bound yet."""
        bound: list[tuple[str, Binding]] = []
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound = [(node.name, _parsed(node, self._module.name))]
            case ast.Import(names=names):
                bound = [
                    (it.asname, Reference(it.name, ""))
                    if it.asname
                    else (it.name.partition(".")[0], Reference(it.name.partition(".")[0], ""))
                    for it in names
                ]
            case ast.ImportFrom():
                bound = list(self._import_from(node))
            case (
                ast.Assign(targets=[ast.Name(id="__all__")], value=value)
                | ast.AugAssign(target=ast.Name(id="__all__"), value=value)
                | ast.Expr(ast.Call(func=ast.Attribute(value=ast.Name(id="__all__")), args=[value]))
            ):
                self._module.declared = [*(self._module.declared or ()), *self._names(value)]
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Name() | ast.Attribute() as it):
                alias = Reference(self._module.name, ast.unparse(it))
                bound = [(name, alias)] if alias.name != name else []
            case ast.If():
                for statement in _branch(node, self._module.name):
                    self.read(statement, fallback=fallback)
            case ast.Try():
                for statement in (*node.body, *node.orelse):
                    self.read(statement, fallback=fallback)
                for handler in node.handlers:  # the pure-Python twin of a C module
                    for statement in handler.body:
                        self.read(statement, fallback=True)
        for name, binding in bound:
            if not (fallback and name in self._module.bindings):
                self._module.bindings[name] = binding

    def _import_from(self, node: ast.ImportFrom) -> Iterator[tuple[str, Binding]]:
        package = self._module.package
        for _ in range(node.level - 1):
            package = package.rpartition(".")[0]
        source = ".".join(filter(None, (package if node.level else "", node.module)))
        starred = node.names[0].name == "*"
        private = "._" in f".{source}" or source.startswith(f"{self._module.name}.")
        if node.names[0].name == "__all__":
            self._module.declared = self._exported(source)
            return
        pairs = [(it.name, it.asname or it.name) for it in node.names]
        for name, bound in [(n, n) for n in self._exported(source)] if starred else pairs:
            yield bound, Reference(source, name)
            if starred or private:
                self._module.reexported.append(bound)

    def _names(self, value: ast.expr) -> list[str]:
        """The names in an expression for ``__all__``; what only running it tells is left out."""
        match value:
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [str(it.value) for it in items if isinstance(it, ast.Constant)]
            case ast.Constant(value=str() as name):
                return [name]
            case ast.BinOp(left=left, right=right):
                return [*self._names(left), *self._names(right)]
            case ast.Attribute(value=ast.Name(id=name), attr="__all__"):
                target = self._module.bindings.get(name)
                if isinstance(target, Reference):
                    return self._exported(".".join(filter(None, (target.module, target.name))))
        return []


def _branch(node: ast.If, module: str) -> list[ast.stmt]:
    """The branch that runs here, for tests on the platform or version; else both."""
    known = {"sys": sys, "os": os, "hasattr": hasattr, "__name__": module, "__builtins__": {}}
    try:
        taken = eval(compile(ast.Expression(node.test), module, "eval"), known)
    except Exception:  # the test needs the module itself
        return [*node.body, *node.orelse]
    return node.body if taken else node.orelse


def _parsed(
    node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, module: str, owner: str = ""
) -> Definition:
    key = (module, owner + node.name)
    text = ast.get_docstring(node) or ""
    if not isinstance(node, ast.ClassDef):
        decorators = " ".join(ast.unparse(it) for it in node.decorator_list)
        arguments = [*node.args.posonlyargs, *node.args.args]
        if "property" in decorators and owner:
            return Definition(key, "property", "", text)
        if owner and arguments and "staticmethod" not in decorators:
            (node.args.posonlyargs or node.args.args).pop(0)
        elif arguments and arguments[0].arg == "self":  # a special form of typing
            return Definition(key, "function", "", text)
        signature = f"({ast.unparse(node.args).removeprefix('/, ').removeprefix('/')})"
        return Definition(key, "method" if owner else "function", signature, text)
    made = Definition(key, "class", "", text)
    made.bases = [Reference(module, ast.unparse(it).partition("[")[0]) for it in node.bases]
    for it in _class_body(node.body):
        if not any(ast.unparse(mark).endswith(("setter", "deleter")) for mark in it.decorator_list):
            made.members[it.name] = _parsed(it, module, f"{key[1]}.")
    _add_constructor(made)
    return made


def _class_body(
    body: list[ast.stmt],
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _class_body([*node.body, *node.orelse])


def _add_constructor(made: Definition) -> None:
    constructor = made.members.get("__init__") or made.members.get("__new__")
    if constructor is not None:
        made.signature = constructor.signature
        made.text = "\n\n".join(filter(None, (made.text, constructor.text)))


def imported_module(name: str) -> Module | None:
    """Read a module by importing it; None if this Python has none of that name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a deprecation is no news to someone reading the docs
        try:
            real = import_module(name)
        except Exception:  # absent on this platform, or its shared library is
            return None
    module = Module(name, name.rpartition(".")[0], inspect.cleandoc(real.__doc__ or ""))
    declared = getattr(real, "__all__", None)
    names: Iterable[str] = vars(real) if declared is None else declared
    module.declared = None if declared is None else list(declared)
    for it in names:
        value = vars(real).get(it)
        written = str(getattr(value, "__module__", None) or name)
        # Debuggers and notebooks add names of their own to builtins.
        if _is_documented(value) and written.partition(".")[0] in sys.stdlib_module_names:
            module.bindings[it] = _inspected(value, written, getattr(value, "__qualname__", it))
    return module


def _is_documented(value: object) -> bool:
    return isinstance(value, type) or inspect.isroutine(value)


def _inspected(value: Any, module: str, qualified_name: str, *, member: bool = False) -> Definition:
    text = value.__doc__ if isinstance(value.__doc__, str) else ""
    text = inspect.cleandoc(text)
    key = (module, qualified_name)
    if isinstance(value, _DATA):
        return Definition(key, "property", "", text)
    if not isinstance(value, type):
        return Definition(key, "method" if member else "function", _signature(value, text), text)
    own_text = text if isinstance(vars(value).get("__doc__"), str) else ""
    made = Definition(key, "class", "", own_text)
    made.bases = [Reference(it.__module__, it.__qualname__) for it in value.__bases__]
    for name, raw in vars(value).items():
        plain = getattr(raw, "__func__", raw)  # inside staticmethod and classmethod
        constructs = name == "__init__" and inspect.isfunction(raw)
        if not constructs and (name.startswith("_") or plain is value):
            continue
        if isinstance(plain, type) and not plain.__qualname__.startswith(f"{qualified_name}."):
            continue  # a class kept as an attribute, not a part of this one
        if isinstance(plain, _DATA) or _is_documented(plain):
            own_name = getattr(plain, "__name__", name)
            it = _inspected(plain, module, f"{qualified_name}.{own_name}", member=True)
            it.signature = re.sub(r"^\((self|cls|type)\b(, /)?(, )?", "(", it.signature)
            made.members[name] = it
    made.signature = _signature(value, own_text)
    _add_constructor(made)
    return made


def _signature(value: Any, text: str) -> str:
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", str(inspect.signature(value)))
    except (ValueError, TypeError):  # C code that states it only in its docstring, or nowhere
        stated = re.match(rf"(?:\w+\.)*{re.escape(value.__name__)}(\(.*?\)?\))(?:\s|$|:)", text)
        return stated[1] if stated else ""
