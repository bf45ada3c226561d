"""The order of the sub-packages: imports go downwards only, and in no circle."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import qdrant_rerank

ROOT = Path(qdrant_rerank.__file__).parent
# From the bottom upwards: a module may import from its own place and from those before it.
ORDER = """
    _version errors utils hub inference types embedders options payload qdrant cross_encoder
    reranking search integrations evaluation serving capacity distributed cli __main__
""".split()


def imported(path):
    """(module, line) of each import of ours in a file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qdrant_rerank"):
            for name in node.names:
                module = f"{node.module}.{name.name}"
                yield module if file_of(module) else node.module, node.lineno


def file_of(module):
    """The file of a module, or None if that is none of ours."""
    path = ROOT.parent.joinpath(*module.split("."))
    found = path.with_suffix(".py"), path / "__init__.py"
    return next((file for file in found if file.is_file()), None)


def modules():
    """Every module but the package's own ``__init__``, which only names what the others define."""
    return [path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py"]


def room(module):
    """The sub-package, or the module at the top, that it is in."""
    return module.split(".")[1]


def dotted(path):
    """The name that a file is imported by."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_sub_package_has_its_place():
    """Nothing is added at the top without a place in the order."""
    there = {path.stem for path in ROOT.glob("*.py")} | {p.parent.name for p in ROOT.glob("*/*.py")}
    assert there - {"__init__"} == set(ORDER)


def test_imports_go_downwards():
    """A sub-package imports only those below it."""
    upwards = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in modules()
        for module, line in imported(path)
        if module not in {"qdrant_rerank", "qdrant_rerank._version"}
        and ORDER.index(room(module)) > ORDER.index(room(dotted(path)))
    ]
    assert upwards == []


def test_no_module_imports_itself_by_way_of_others():
    """A circle raises graphlib's CycleError, which names its modules."""
    graph = {
        dotted(path): {dotted(file_of(module)) for module, _ in imported(path)}
        for path in modules()
    }
    TopologicalSorter(graph).prepare()
