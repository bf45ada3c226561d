"""The command: how it starts, who may ask, what it logs, how it ends."""

import json
import os
import signal
import ssl
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
from click.testing import CliRunner

from qdrant_rerank import RemoteReranker, TextCrossEncoder
from qdrant_rerank.cli.main import main
from qdrant_rerank.errors import ModelRequestError
from tests.serving import connect, read_all, request_bytes, served, until

KEY, OTHER = "0815-not-a-secret-of-anyone", "4711-nor-is-this-one-here"
SECRET = "zebra-document"
BODY = {"query": SECRET, "texts": [f"{SECRET} one", "two"]}


@contextmanager
def command(*options):
    """The process of ``qdrant-rerank serve``, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qdrant_rerank", "serve", "--port", "0", *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("Listening on "):
                yield process, line.split()[-1], lines
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ended(process, lines):
    """The exit code, when the process has ended; the lines get what it wrote."""
    lines += process.stderr.readlines()
    return process.wait(60)


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_requests_that_were_accepted_are_finished(tiny_bert, tmp_path, stop):
    """The listener closes first; then the process ends."""
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['{tiny_bert}']\nmax_documents = 100000\n")
    texts = ["word " * 150] * 400
    with command("--config", config) as (process, url, lines):
        with connect(url) as connection:
            connection.sendall(request_bytes("/rerank", {"query": "q", "texts": texts}))
            until(lambda: "waiting_requests 1.0" in httpx.get(url + "/metrics").text)
            process.send_signal(stop)
            answer = read_all(connection)
        code = ended(process, lines)
    assert answer.startswith(b"HTTP/1.1 200 ")
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    scores = TextCrossEncoder(tiny_bert, activation="sigmoid").rerank("q", texts)
    assert [one["score"] for one in sorted(found, key=lambda one: one["index"])] == scores
    assert code == (-stop if stop is signal.SIGTERM else 130)  # as shells have it of Ctrl-C
    with pytest.raises(httpx.ConnectError):
        httpx.get(url + "/health")


def test_logs_are_json_without_texts_and_keys(tiny_bert, tmp_path):
    """Each request has its line: route, status, seconds, model, documents, tokens."""
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY}\n{OTHER}\n")
    with command("--model", f"tiny={tiny_bert}", "--api-key-file", keys) as (process, url, lines):
        authorized = {"Authorization": f"Bearer {OTHER}"}
        assert httpx.post(url + "/rerank", json=BODY, headers=authorized).status_code == 200
        refused = httpx.post(f"{url}/rerank?key={KEY}", json=BODY)
        assert httpx.post(f"{url}/{SECRET}", json=BODY, headers=authorized).status_code == 404
        wrong = {"query": SECRET, "texts": [SECRET, 7]}
        assert httpx.post(url + "/rerank", json=wrong, headers=authorized).status_code == 422
        process.send_signal(signal.SIGTERM)
        ended(process, lines)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    logged = [json.loads(line) for line in lines if not line.startswith("Listening")]
    requests = [line for line in logged if line["message"] == "request"]
    assert [(line["route"], line["status"]) for line in requests] == [
        ("/rerank", 200), ("/rerank", 401), ("unknown", 404), ("/rerank", 422)
    ]  # fmt: skip
    assert (requests[0]["model"], requests[0]["documents"]) == ("tiny", 2)
    assert requests[0]["tokens"] > 4
    for secret in (KEY, OTHER, SECRET):
        assert secret not in "".join(lines)


def test_keys_are_asked_for_everywhere_but_where_nothing_is_told(tiny_bert):
    """Health and readiness are open: those who start servers ask them without a key."""
    with served(models=[str(tiny_bert)], api_keys=[KEY, OTHER]) as url:
        for path in ("/health", "/ready"):
            assert httpx.get(url + path).status_code == 200
        for path in ("/info", "/v1/models", "/metrics", "/rerank", "/nowhere"):
            assert httpx.get(url + path).status_code == 401
        for wrong in ({}, {"Authorization": KEY}, {"Authorization": f"Bearer {KEY}x"}):
            assert httpx.post(url + "/rerank", json=BODY, headers=wrong).status_code == 401
        twice = [("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")]
        assert httpx.post(url + "/rerank", json=BODY, headers=twice).status_code == 401
        for key in (KEY, OTHER):
            with RemoteReranker(url, api="tei", api_key=key) as reranker:
                assert len(reranker.rerank("q", ["a", "b"])) == 2
        with pytest.raises(ModelRequestError, match="401"):
            RemoteReranker(url, api="tei", api_key="wrong-key").rerank("q", ["a"])


def test_other_sites_pages_may_not_ask(tiny_bert):
    """No answer has the headers of CORS."""
    with served(models=[str(tiny_bert)]) as url:
        headers = {"Origin": "http://evil.invalid", "Access-Control-Request-Method": "POST"}
        for answer in (
            httpx.options(url + "/rerank", headers=headers),
            httpx.post(url + "/rerank", json=BODY, headers=headers),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--host", "0.0.0.0"], "--api-key-file FILE"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--host", "nowhere.invalid", "--insecure"], "Cannot listen on nowhere.invalid"),
        (["--host", "a..b"], "Cannot listen on a..b, which names no address"),
        (["--certfile", "nowhere.pem"], "The certificate nowhere.pem cannot be used"),
        (["--config", "nowhere.toml"], "nowhere.toml cannot be read: No such file"),
        (["--api-key-file", "nowhere"], "The key file nowhere cannot be read"),
        (["--collection", "docs"], "no Qdrant that has them. Pass --path or --url"),
        (["--collection", "docs", "--path", "nowhere"], "There is no Qdrant at nowhere"),
        (["--precision", "fp64"], "precision is 'fp64'"),
    ],
)
def test_what_cannot_be_served_is_one_line(options, expected, tmp_path, monkeypatch):
    """On stderr, with exit code 2."""
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["serve", "--port", "0", *options])
    assert done.exit_code == 2
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_address_that_is_taken(tiny_bert):
    """Is refused before a model is loaded."""
    with served(models=[str(tiny_bert)]) as url:
        port = url.rpartition(":")[2]
        done = CliRunner().invoke(main, ["serve", "--port", port, "--model", "no-such-model"])
    assert done.exit_code == 2
    assert f"Cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr


def certified(folder):
    """The files of a certificate of this machine, and of its key."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out",
         certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


def test_tls_by_files(tiny_bert, tmp_path):
    """A client that trusts the certificate gets its scores over https."""
    certificate, key = certified(tmp_path)
    with served(models=[str(tiny_bert)], certfile=str(certificate), keyfile=str(key)) as url:
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=certificate)
        found = httpx.post(url + "/rerank", json=BODY, verify=trusting)
        assert (found.status_code, len(found.json())) == (200, 2)


def test_the_server_needs_its_extra_and_says_so(tmp_path):
    """With the command that installs it."""
    code = (
        "import sys; sys.modules['starlette'] = None\n"
        "from qdrant_rerank.cli.main import main\n"
        "main(['serve'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert 'pip install "qdrant-rerank[serve]"' in done.stderr
