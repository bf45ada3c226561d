"""Progress bars in a notebook."""

import nbformat
import pytest
from nbclient import NotebookClient

# Every module that shows a bar, with all warnings shown, and one real bar.
CELL = """
import importlib, sys, warnings
sys.modules["ipywidgets"] = None
warnings.simplefilter("always")
import qdrant_rerank
from qdrant_rerank import HybridSearcher
for module in ("hub.client", "evaluation.compare", "cross_encoder.text_cross_encoder"):
    importlib.import_module("qdrant_rerank." + module)
from huggingface_hub import snapshot_download
with HybridSearcher("docs", reranker=None) as searcher:
    print(searcher.add(["iron", "bread"], progress=True), "documents")
"""
STREAMS = ("stdout", "stderr")


@pytest.mark.filterwarnings("ignore")  # of jupyter's own
def test_a_notebook_without_widgets_shows_a_bar_and_no_warning():
    """On stderr, as in a terminal."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    outputs = notebook.cells[0].outputs
    shown = {name: "".join(o.text for o in outputs if o.name == name) for name in STREAMS}
    assert shown["stdout"] == "2 documents\n"
    assert "indexing" in shown["stderr"]
    assert "TqdmWarning" not in shown["stderr"]
