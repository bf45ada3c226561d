"""Docstrings are written for ``help()``: their roles become links, their tables become blocks."""

import re

import griffe

import qdrant_rerank

ROLE = re.compile(r":(?:class|meth|func|mod|attr|data):`~?([\w.]+)`")
RULE = r"^ *=+(?: +=+)+ *$"
TABLE = re.compile(rf"{RULE}\n.*?{RULE}\n.*?{RULE}\n?", re.DOTALL | re.MULTILINE)


def _link(found: re.Match[str]) -> str:
    name = found[1].rpartition(".")[2]
    if name in qdrant_rerank.__all__:
        return f"[`{name}`][qdrant_rerank.{name}]"
    return f"`{name}`"


class Roles(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_package(self, *, pkg: griffe.Module, **_: object) -> None:
        """Rewrite every docstring of the package."""
        self._rewrite(pkg)

    def _rewrite(self, item: griffe.Object | griffe.Alias) -> None:
        if item.is_alias:
            return
        if item.docstring is not None:
            text = ROLE.sub(_link, item.docstring.value)
            text = TABLE.sub(lambda found: f"```text\n{found[0].rstrip()}\n```\n", text)
            item.docstring.value = text
        for member in getattr(item, "members", {}).values():
            self._rewrite(member)
