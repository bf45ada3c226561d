"""Findings of doctor: what they show, and what they hide."""

import json

from click.testing import CliRunner

from qdrant_rerank.cli.doctor_finding import Finding
from qdrant_rerank.cli.doctor_server import check_collection
from qdrant_rerank.cli.main import main
from tests.unit.cli.test_doctor_server import info

CANARY = "c4nary-K3y.9"


def test_no_finding_shows_a_secret():
    """Whatever a server, a path or an error said."""
    url = f"https://me:{CANARY}@host:6333/?api_key={CANARY}"
    found = Finding("server", True, f"{url} is not there.", f"Look at {url}.")
    assert found.seen == "https://***@host:6333/?api_key=*** is not there."
    assert CANARY not in repr(found)
    sick = info(optimizer_status={"error": f"cannot fetch {url}"})
    assert CANARY not in repr(list(check_collection(sick, embedded=False)))


def test_the_command_shows_no_secret_of_its_options(tmp_path):
    """As a table and as JSON; the path is there without its secret."""
    path = f"{tmp_path}/s3://me:{CANARY}@bucket"
    for more in ([], ["--json"]):
        done = CliRunner().invoke(main, ["doctor", "--path", path, *more])
        assert CANARY not in done.output
        assert "***" in done.output
    assert any("There is no Qdrant at" in one["seen"] for one in json.loads(done.output))
