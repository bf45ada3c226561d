"""The notebooks: run them, store what they show, compare it with what they showed.

``python -m tests.notebooks`` (``make notebooks``) stores the outputs.
"""

import platform
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.pages import require_same

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: Tag of cells whose outputs have times in them, or depend on times.
TIMED = "timed"
#: Tag of cells that show places in the first stage, where hits with equal scores may change places.
TIES = "ties"


def run(path, timeout=600):
    """Return a notebook with the outputs of a run, and without what changes with each run."""
    notebook = nbformat.read(path, as_version=4)
    where = {"metadata": {"path": str(path.parent)}}  # as jupyter runs it
    NotebookClient(notebook, timeout=timeout, kernel_name="python3", resources=where).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    # The documents are those of this Python.
    notebook.metadata.language_info = {"name": "python", "version": platform.python_version()}
    return notebook


def texts_of(cell):
    """Return what a cell shows as plain text; tables in HTML have it, too."""
    texts = [output.text for output in cell.outputs if output.output_type == "stream"]
    texts += [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return [re.sub(r" at 0x[0-9a-f]+", "", text) for text in texts]


def without_places(text):
    """Return a text without its whole numbers."""
    return re.sub(r"(?<![\w.-])-?\d+(?![\w.-])", "#", text)


def kinds_of(cell):
    """Return the kinds of a cell's outputs."""
    return [sorted(output.get("data", {"stream": 0})) for output in cell.outputs]


def require_same_outputs(stored, new, name):
    """Kinds of outputs are the same everywhere, texts where Python is the same."""
    same_documents = stored.metadata.language_info.get("version") == platform.python_version()
    for number, (old, cell) in enumerate(zip(stored.cells, new.cells, strict=True)):
        if cell.cell_type != "code":
            continue
        place = f"{name}, cell {number}"
        assert kinds_of(old) == kinds_of(cell), place
        tags = cell.metadata.get("tags", [])
        if same_documents and TIMED not in tags:
            for texts in zip(texts_of(old), texts_of(cell), strict=True):
                shown, printed = map(without_places, texts) if TIES in tags else texts
                require_same(shown, printed, place)


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(run(path), path)
        sys.stderr.write(f"{path.name}: {path.stat().st_size / 1000:.0f} kB\n")
