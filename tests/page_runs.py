"""Runs the blocks of a page, or looks at those that are not run."""

import ast
import builtins
import inspect
import os
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import click

import qdrant_rerank
from qdrant_rerank.cli.main import main


def printed_by(block, names, exports):
    """What a block prints: Python in the page's names, sh in the same folder."""
    if block.language == "python":
        with redirect_stdout(StringIO()) as stdout:
            exec(compile(block.code, block.place, "exec"), names)
        return stdout.getvalue()
    done = subprocess.run(
        [shutil.which("bash") or "sh", "-e", "-c", "\n".join([*exports, block.code])],
        env=os.environ
        | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = [line for line in done.stderr.splitlines() if not line.startswith("Wrote ")]
    assert (done.returncode, told) == (0, []), block.place
    exports += re.findall(r"^export .*", block.code, re.MULTILINE)
    return done.stdout


def require_sound(block, names):
    """A block that is not run has names, imports, keywords and options that exist."""
    if block.language == "sh":
        for line in re.findall(r"^qdrant-rerank (.*?)(?: +#.*)?$", block.code, re.MULTILINE):
            command, words = main, line.split()
            while isinstance(command, click.Group) and words and words[0] in command.commands:
                command = command.commands[words.pop(0)]
            assert command is not main, block.place
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word for word in words if word.startswith("-")} <= known, block.place
        return
    nodes = list(ast.walk(ast.parse(block.code)))
    ours = {
        alias.name: getattr(qdrant_rerank, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom) and node.module == "qdrant_rerank"
        for alias in node.names
    }
    used = [node for node in nodes if isinstance(node, ast.Name)]
    given = {node.id for node in used if isinstance(node.ctx, ast.Store)}
    given |= {node.name for node in nodes if isinstance(node, ast.alias)}
    assert {node.id for node in used} <= given | set(names) | set(dir(builtins)), block.place
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = ours.get(node.func.id) or names.get(node.func.id)
            if callable(called):
                known = set(inspect.signature(called).parameters)
                assert {keyword.arg for keyword in node.keywords} <= known, block.place
