"""What importing the package costs, exports and needs."""

import importlib.metadata
import statistics
import subprocess
import sys

import pytest

import qdrant_rerank
from qdrant_rerank.hub.catalog import BUILT_IN
from qdrant_rerank.hub.locate import locate
from qdrant_rerank.hub.specs import BUNDLED_DIRECTORY, DEFAULT_EMBEDDER, DEFAULT_RERANKER

WITHOUT_ONNXRUNTIME = """
import sys
sys.modules["onnxruntime"] = None
import qdrant_rerank as q
from qdrant_client.models import ScoredPoint
q.StaticEmbedder.bundled().embed_query("works without")
try:
    q.TextCrossEncoder(q.DEFAULT_RERANKER)
except ImportError as error:
    print(type(error).__name__, error)
"""


def python(code):
    """stdout of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_import_is_fast_and_loads_neither_runtime_nor_client():
    """Under 0.5 s of processor time, median of 3, the interpreter's own included."""
    code = "import qdrant_rerank, sys, time; print(time.process_time(), *sorted(sys.modules))"
    runs = [python(code).split() for _ in range(3)]
    assert statistics.median(float(run[0]) for run in runs) < 0.5
    assert not {"onnxruntime", "qdrant_client", "numpy", "tokenizers"} & set(runs[0])


def test_every_export_loads():
    """And dir() lists exactly these."""
    assert dir(qdrant_rerank) == sorted(qdrant_rerank.__all__)
    for name in qdrant_rerank.__all__:
        assert getattr(qdrant_rerank, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        _ = qdrant_rerank.Nonsense
    assert qdrant_rerank.__version__ == importlib.metadata.version("qdrant-rerank")


def test_without_onnxruntime_only_running_a_model_fails():
    """With the command that fixes it."""
    said = python(WITHOUT_ONNXRUNTIME)
    assert said.startswith("MissingDependencyError")
    assert 'pip install "qdrant-rerank[cpu]"' in said


def test_with_both_runtimes_installed_it_says_so(tmp_path):
    """The wheels share one directory, so which of them runs is chance."""
    fake = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    fake.mkdir()
    (fake / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1")
    code = (
        f"import sys; sys.path.append({str(tmp_path)!r})\n"
        "import warnings; warnings.simplefilter('always')\n"
        "with warnings.catch_warnings(record=True) as seen:\n"
        "    from qdrant_rerank.inference.sessions import import_onnxruntime\n"
        "    import_onnxruntime()\n"
        "print(*[w.message for w in seen])"
    )
    said = python(code)
    assert "onnxruntime and onnxruntime-gpu are both installed" in said
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in said


def test_the_bundled_models_are_small_and_have_their_cards():
    """At most 70 MB together; a card names the licence that the list of models does."""
    files = [path for path in BUNDLED_DIRECTORY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 70e6
    bundled = [spec for spec in BUILT_IN.values() if spec.sources is None]
    licenses = {spec.directory: spec.license for spec in bundled}
    licenses[BUNDLED_DIRECTORY / DEFAULT_EMBEDDER] = "apache-2.0"
    assert sorted(licenses) == sorted(BUNDLED_DIRECTORY.iterdir())
    assert all(licenses[spec.directory] == spec.license for spec in bundled)
    for folder, license in licenses.items():
        card = (folder / "README.md").read_text()
        for part in (f"license: {license}\n", "**Data.**", "**Results**", "**Limits.**"):
            assert part in card
    assert locate(DEFAULT_RERANKER).model.is_file()
