"""The notebooks run from top to bottom, and show what they showed."""

import nbformat
import pytest

from tests.notebooks import NOTEBOOKS, require_same_outputs, run

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
    """It shows what is stored in it, without an error: tables, plots and the texts above."""
    path = NOTEBOOKS / f"{name}.ipynb"
    stored = nbformat.read(path, as_version=4)
    notebook = run(path, timeout=120)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    texts, plots = SHOWN[name]
    assert "text/html" in kinds
    assert kinds.count("image/png") >= plots
    for text in texts:
        assert any(text in str(output) for output in outputs)
    assert [output for output in outputs if output.output_type == "error"] == []
    require_same_outputs(stored, notebook, path.name)


def test_the_notebooks_are_small():
    """With their plots they stay readable on a forge."""
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("*.ipynb")) < 1_000_000
