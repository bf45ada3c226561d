"""The notebooks run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
#: Text that must be among the outputs, and the least number of pictures.
SHOWN = {
    "quickstart": (["SearchTrace", "[('asyncio.sleep', "], 1),
    "evaluation": (["nDCG@10", "rank-biased overlap", "overtaken by"], 4),
}


def test_every_notebook_is_run():
    """One that is added is tested."""
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.filterwarnings("ignore")  # of jupyter's own
@pytest.mark.parametrize("name", SHOWN)
def test_notebook(name):
    """Without an error, with tables, pictures and what it is about in its outputs."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}  # as jupyter runs it
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    texts, pictures = SHOWN[name]
    assert "text/html" in kinds
    assert kinds.count("image/png") >= pictures
    for text in texts:
        assert any(text in str(output) for output in outputs)
    assert [output for output in outputs if output.output_type == "error"] == []
