"""docker-compose.yml: one node, a cluster behind a balancer, nothing open to the network."""

import importlib.metadata
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import qdrant_rerank
from qdrant_rerank.cli.serve import serve
from qdrant_rerank.serving import ServeSettings
from qdrant_rerank.serving.front import OPEN_PATHS
from tests.fault_server import Script, answer, refused, serving

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
    assert [len(ports[name]) for name in ("qdrant", "balancer", "node1", "rerank")] == [2, 2, 0, 1]


def test_versions_are_pinned_and_servers_are_watched(services):
    """Every service has a version and a health check; every server a volume and the key."""
    for name, one in services.items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-alpine)?", one["image"]), name
        assert one["healthcheck"]["test"][0] == "CMD"
        if name not in {"balancer", "rerank"}:
            assert one["environment"]["QDRANT__SERVICE__API_KEY"] == "${QDRANT_API_KEY:-}"
            assert one["volumes"][0].endswith(":/qdrant/storage")
    folders = [one["volumes"][0] for one in services.values() if "volumes" in one]
    assert len(set(folders)) == len(folders) == 4


def test_the_reranking_server_is_a_profile(services):
    """Of the image that the Dockerfile makes, with settings that the server reads."""
    one = services["rerank"]
    assert one["profiles"] == ["serve"]
    assert one["image"] == f"qdrant-rerank:{qdrant_rerank.__version__}"
    assert one["environment"]["QDRANT_URL"] == "http://qdrant:6333"
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    settings = yaml.safe_load(text)["configs"]["serve"]["content"]
    assert ServeSettings().changed(tomllib.loads(settings), "the file").timeout_s == 30


def test_the_image_runs_the_server_without_rights():
    """Its options exist, and no step after the build runs as root."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    final = text.rpartition("\nFROM ")[2]
    assert final.index("\nUSER server\n") < final.index("\nENTRYPOINT ")
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", final, re.MULTILINE)
    [command] = re.findall(r"^CMD (.*)$", final, re.MULTILINE)
    words = [*json.loads(entry), *json.loads(command)]
    assert words[:2] == ["qdrant-rerank", "serve"]
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known
    [check] = re.findall(r"CMD (\[\"python\".*)$", final, re.MULTILINE)
    assert "os.environ['HEALTH_URL']" in json.loads(check)[-1]
    assert "\nENV HEALTH_URL=http://127.0.0.1:8080/health\n" in final
    assert words[words.index("--port") + 1] == "8080"


def test_the_pod_of_the_manual_runs_the_server():
    """Its options exist, its probes need no key, and the requests have time to finish."""
    manual = (ROOT / "docs" / "containers.md").read_text("utf-8")
    [content] = re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL)
    pod = yaml.safe_load(content)["spec"]["template"]["spec"]
    [server] = pod["containers"]
    assert server["image"].endswith(f"/qdrant-rerank:{qdrant_rerank.__version__}")
    known = {option for parameter in serve.params for option in parameter.opts}
    assert {word for word in server["args"] if word.startswith("--")} <= known
    for probe in (server["livenessProbe"], server["readinessProbe"]):
        assert probe["httpGet"]["path"] in OPEN_PATHS
    assert pod["terminationGracePeriodSeconds"] > ServeSettings().shutdown_s
    user = server["securityContext"]["runAsUser"]
    assert f"--uid {user} " in (ROOT / "Dockerfile").read_text("utf-8")


def test_the_cluster_replicates_and_the_balancer_knows_all_nodes(services):
    """Over REST and gRPC; a node joins the first one."""
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    for name in ("node1", "node2", "node3"):
        environment = services[name]["environment"]
        assert environment["QDRANT__CLUSTER__ENABLED"] == "true"
        assert environment["QDRANT__STORAGE__COLLECTION__REPLICATION_FACTOR"] == "2"
        assert f"http://{name}:6335" in services[name]["command"]
        assert f"server {name}:6333 resolve;" in text
        assert f"server {name}:6334 resolve;" in text
        # The flags of the first node, or of one that joins it; nothing else is run.
        joins = [] if name == "node1" else ["--bootstrap", "http://node1:6335"]
        uri = ["--uri", f"http://{name}:6335"]
        assert services[name]["command"] == ["./qdrant", *joins, *uri]
    # Names that are asked for again need a resolver, which is Docker's, and shared memory.
    assert "resolver 127.0.0.11" in text
    assert re.findall(r"zone (\w+) 64k;", text) == ["http", "grpc"]
    assert set(services["balancer"]["depends_on"]) == {"node1", "node2", "node3"}


@pytest.mark.parametrize("name", ["qdrant", "node1", "node3"])
@pytest.mark.parametrize(
    ("respond", "healthy"),
    [
        (answer(200, b"all shards are ready"), True),
        (answer(503, b"some shards are not ready"), False),
        (answer(401, b"Must provide an API key: 200 of them"), False),
        (refused, False),
        (None, False),
    ],
    ids=["ready", "not yet", "no access", "closes", "nobody listens"],
)
def test_the_health_check_tells_ready_from_not(services, name, respond, healthy):
    """The very command, against a server in the place of Qdrant; bash is in the image."""
    script = Script({"*": [respond or refused]})
    with serving(script) as url:
        port = url.rpartition(":")[2] if respond else "1"
        *shell, command = services[name]["healthcheck"]["test"]
        assert shell == ["CMD", "bash", "-c"]
        assert command.count("/6333") == 1
        done = subprocess.run(
            ["bash", "-c", command.replace("/6333", f"/{port}")],
            timeout=30,
            check=False,
            capture_output=True,
        )
    assert (done.returncode == 0) == healthy
    assert [path for _, path, _ in script.seen] == ["/readyz"] * bool(respond)


def test_every_server_is_of_the_clients_version(services):
    """The one and the three nodes, to the minor version."""
    others = {"balancer", "rerank"}
    versions = {one["image"] for name, one in services.items() if name not in others}
    [image] = versions
    client = importlib.metadata.version("qdrant-client").split(".")
    assert re.fullmatch(r"qdrant/qdrant:v(\d+)\.(\d+)\.\d+", image).groups() == tuple(client[:2])
