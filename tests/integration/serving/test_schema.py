"""schemathesis asks what the description allows, and much that it does not: make schemathesis."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qdrant_rerank import HybridSearcher
from qdrant_rerank.qdrant.transport.client import connect
from tests.serving import served

pytest.importorskip("schemathesis", reason="make schemathesis")

# That a body is valid does not say that it can be answered: a document may have no text, or two
# lists different lengths. The descriptions of the calls say so, and JSON Schema cannot.
LEFT_OUT = "positive_data_acceptance"


@pytest.mark.filterwarnings("ignore:Queries of")  # in a script that the embedder does not know
def test_no_server_error_and_answers_as_described(tmp_path):
    """With a collection, whose searches are reached, too."""
    client = connect(path=str(tmp_path / "db"))
    HybridSearcher("docs", client=client).add(["Iron melts at 1538 C.", "Bread."], progress=False)
    client.close()
    command = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    with served(collections=["docs"], path=str(tmp_path / "db")) as url:
        done = subprocess.run(
            [command, "run", f"{url}/openapi.json", "--max-examples", "50", "--no-color",
             "--exclude-checks", LEFT_OUT, "--suppress-health-check", "all", "--seed", "1"],
            check=False,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
