"""Fixtures that several test modules share, and the guard that keeps tests on this machine."""

import importlib.util
import os
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from qdrant_client import QdrantClient

from qdrant_rerank import DEFAULT_RERANKER, TextCrossEncoder
from tests.guard import sitecustomize
from tests.models import variants
from tests.releases import CLIENT

collect_ignore = []
# Built of models that older releases of qdrant-client lack, or of what its local mode could not do.
if CLIENT < (1, 20):
    collect_ignore += [
        "unit/qdrant/test_server_version.py",
        "integration/qdrant/embedded/scenarios.py",
        "integration/qdrant/embedded/test_call_table.py",
        "integration/qdrant/embedded/test_calls.py",
        "integration/qdrant/embedded/test_congruence.py",
        "integration/qdrant/embedded/test_damage.py",
        "integration/qdrant/embedded/test_log.py",
        "integration/qdrant/embedded/test_parity.py",
        "integration/qdrant/embedded/test_refused.py",
        "integration/qdrant/embedded/test_vector_names.py",
        "integration/qdrant/test_recall.py",
        "integration/qdrant/test_recall_requests.py",
        "integration/qdrant/transport/test_faults.py",
        "integration/qdrant/transport/test_grpc.py",
        "integration/reranking/test_late_interaction.py",
    ]
# The oldest release of huggingface_hub that fastembed takes is newer than that we take.
if importlib.util.find_spec("fastembed") is None:
    collect_ignore += ["integration/search/test_search.py"]

# A property holds or it does not, however busy the machine is.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

MODELS = Path(__file__).parent / "models"
GUARD = Path(sitecustomize.__file__).parent


def pytest_configure(config):
    """Let each process of a test be interrupted, and refuse what is not this machine in writing."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As nohup and some CI leave it: a child would ignore it, too, however a test interrupts it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if os.environ.get("PYTEST_XDIST_WORKER"):  # started with what follows
        return
    log = Path(tempfile.mkdtemp(prefix="loopback-guard-")) / "log"
    config.stash[LOG] = log
    os.environ[sitecustomize.LOG] = str(log)
    paths = [str(GUARD), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


@pytest.hookimpl(trylast=True)  # when the processes that ran the tests are done
def pytest_sessionfinish(session):
    """Fail a run in which any process asked for another machine, even if its test passed."""
    log = session.config.stash.get(LOG, None)
    if log is not None and log.exists():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(
            f"\nTest processes asked for other machines:\n{log.read_text()}", red=True
        )


LOG = pytest.StashKey[Path]()


@pytest.fixture(autouse=True)
def no_qdrant_in_the_environment(monkeypatch, request):
    """Tests choose their Qdrant themselves; only those marked ``server`` see the caller's."""
    if "server" not in request.keywords:
        for name in ("QDRANT_URL", "QDRANT_API_KEY", "QDRANT_PATH"):
            monkeypatch.delenv(name, raising=False)


@pytest.fixture
def client():
    """The embedded engine, in memory."""
    made = QdrantClient(location=":memory:")
    yield made
    made.close()


@pytest.fixture(scope="session")
def bundled():
    """The bundled cross-encoder, loaded once."""
    return TextCrossEncoder(DEFAULT_RERANKER)


@pytest.fixture(scope="session")
def tiny_bert():
    """Directory of a random-weight BERT cross-encoder."""
    return MODELS / "tiny-bert"


@pytest.fixture(scope="session")
def tiny_xlmr():
    """Directory of a random-weight XLM-R cross-encoder."""
    return MODELS / "tiny-xlmr"


@pytest.fixture(scope="session")
def tiny_bert_embedder(tiny_bert, tmp_path_factory):
    """Directory of the BERT encoder without its head."""
    return variants.embedding(tiny_bert, tmp_path_factory.mktemp("models") / "embedder")


@pytest.fixture
def server_url():
    """A running Qdrant; skips where there is none."""
    url = os.environ.get("QDRANT_URL")
    if not url:
        pytest.skip("QDRANT_URL is not set; start a server with 'docker compose up -d'")
    return url
