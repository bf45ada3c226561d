"""docker-compose.yml: one node, a cluster behind a balancer, nothing open to the network."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def services():
    """The services of the file."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]


def test_one_node_starts_by_default(services):
    """The cluster and its balancer are a profile."""
    assert [name for name, one in services.items() if not one.get("profiles")] == ["qdrant"]
    assert {name for name, one in services.items() if one.get("profiles") == ["cluster"]} == {
        "node1",
        "node2",
        "node3",
        "balancer",
    }


def test_ports_are_open_to_this_machine_alone(services):
    """REST and gRPC of the one node, and of the balancer."""
    ports = {name: one.get("ports", []) for name, one in services.items()}
    assert all(port.startswith("127.0.0.1:") for every in ports.values() for port in every)
    assert [len(ports[name]) for name in ("qdrant", "balancer", "node1")] == [2, 2, 0]


def test_versions_are_pinned_and_servers_are_watched(services):
    """Every service has a version and a health check; every server a volume and the key."""
    for name, one in services.items():
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-alpine)?", one["image"]), name
        assert one["healthcheck"]["test"][0] == "CMD"
        if name != "balancer":
            assert one["environment"]["QDRANT__SERVICE__API_KEY"] == "${QDRANT_API_KEY:-}"
            assert one["volumes"][0].endswith(":/qdrant/storage")
    folders = [one["volumes"][0] for one in services.values() if "volumes" in one]
    assert len(set(folders)) == len(folders) == 4


def test_the_cluster_replicates_and_the_balancer_knows_all_nodes(services):
    """Over REST and gRPC; a node joins the first one."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    for name in ("node1", "node2", "node3"):
        environment = services[name]["environment"]
        assert environment["QDRANT__CLUSTER__ENABLED"] == "true"
        assert environment["QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR"] == "2"
        assert f"http://{name}:6335" in services[name]["command"]
        assert f"server {name}:6333;" in text
        assert f"server {name}:6334;" in text
    assert "http://node1:6335" in services["node3"]["command"]
