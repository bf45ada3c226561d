"""The notebooks run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
#: Texts that the outputs must have, and the least number of plots.
SHOWN = {
    "quickstart": (["SearchTrace", "[('asyncio.sleep', "], 1),
    "evaluation": (["nDCG@10", "rank-biased overlap", "overtaken by"], 4),
}


def test_every_notebook_is_run():
    """A notebook that is added is tested too."""
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.filterwarnings("ignore")  # Jupyter's own warnings
@pytest.mark.parametrize("name", SHOWN)
def test_notebook(name):
    """It runs without an error and shows tables, plots and the texts above."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    where = {"metadata": {"path": str(NOTEBOOKS)}}  # as jupyter runs it
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    texts, plots = SHOWN[name]
    assert "text/html" in kinds
    assert kinds.count("image/png") >= plots
    for text in texts:
        assert any(text in str(output) for output in outputs)
    assert [output for output in outputs if output.output_type == "error"] == []
