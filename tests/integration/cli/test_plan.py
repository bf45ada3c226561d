"""``qdrant-rerank plan``, with speeds that it measures itself."""

import json

from click.testing import CliRunner

from qdrant_rerank.cli.main import main

GIVEN = ["plan", "--documents", "1e8", "--qps", "200"]


def test_speeds_are_measured_unless_they_are_given():
    """The JSON says which were."""
    found = CliRunner().invoke(main, [*GIVEN, "--words", "20", "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.output)
    assert told["sources"]["pairs_per_second"].startswith("measured: grown-e5-small-v1, 20 words")
    assert told["workload"]["pairs_per_second"] > 1
    assert told["workload"]["documents_per_second"] > 1
    assert told["plan"]["pairs_per_second"] == 20_000
    given = ["--pairs-per-second", "80", "--documents-per-second", "1000"]
    told = json.loads(CliRunner().invoke(main, [*GIVEN, *given, "--json"]).output)
    assert set(told["sources"].values()) == {"given"}
    assert told["plan"]["reranker_replicas"] == 91


def test_bad_input_is_one_line_before_anything_is_measured():
    """With exit code 2."""
    for option, value, message in [
        ("--candidates", "0", "--candidates is 0; expected 1 or more"),
        ("--quantization", "int4", "--quantization is 'int4'"),
        ("--pairs-per-second", "0", "--pairs-per-second is 0"),
        ("--node-gib", "-1", "--node-gib is -1"),
        ("--reranker", "no-such-model", "no-such-model"),
    ]:
        found = CliRunner().invoke(main, [*GIVEN, option, value])
        assert found.exit_code == 2, found.output
        assert message in found.output


def test_replicas_need_ray():
    """They would be ignored without it."""
    found = CliRunner().invoke(main, ["serve", "--replicas", "2"])
    assert found.exit_code == 2
    assert "--replicas and --max-replicas are for Ray. Pass --ray as well." in found.output
