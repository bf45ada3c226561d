"""SIGHUP: settings, keys and models are read again, and no request is dropped."""

import asyncio
import gc
import signal
import ssl
import threading
from weakref import WeakSet

import httpx
import pytest
from starlette.applications import Starlette

from qdrant_rerank.errors import QdrantRerankError
from qdrant_rerank.serving import ServeSettings, create_app
from qdrant_rerank.serving.run import listening, make_server
from tests.integration.serving.test_process import certified, command
from tests.serving import until

FIRST, SECOND = "0815-not-a-secret-of-anyone", "4711-nor-is-this-one-here"
BODY = {"query": "q", "texts": ["word " * 40] * 8}


def names(url, key):
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    answer = httpx.get(url + "/v1/models", headers=headers)
    return [one["id"] for one in answer.json()["data"]] if answer.status_code == 200 else []


def test_no_request_is_dropped(tiny_bert, tmp_path):
    """Clients ask all the while; the second key and the second name hold from the switch on."""
    config, keys = tmp_path / "serve.toml", tmp_path / "keys"
    config.write_text(f"models = ['first={tiny_bert}']\n")
    keys.write_text(f"{FIRST}\n{SECOND}\n")
    answers, stop = [], threading.Event()

    def ask(url):
        with httpx.Client(headers={"Authorization": f"Bearer {SECOND}"}, timeout=60) as client:
            while not stop.is_set():
                answer = client.post(url + "/rerank", json=BODY)
                answers.append((answer.status_code, answer.text))

    with command("--config", config, "--api-key-file", keys) as (process, url, _):
        clients = [threading.Thread(target=ask, args=(url,)) for _ in range(3)]
        for client in clients:
            client.start()
        try:
            for number in range(3):
                until(lambda: len(answers) > 10)
                config.write_text(f"models = ['name-{number}={tiny_bert}']\n")
                keys.write_text(f"{SECOND}\n")
                process.send_signal(signal.SIGHUP)
                until(lambda: names(url, SECOND) == [f"name-{number}"])  # noqa: B023
            done = len(answers)
            until(lambda: len(answers) > done + 10)
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert names(url, FIRST) == []
    assert {status for status, _ in answers} == {200}
    assert len({text for _, text in answers}) == 1


def test_a_request_that_has_begun_keeps_its_model(tiny_bert, tmp_path):
    """The old model finishes it after the switch, and then its threads end."""
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['first={tiny_bert}']\nmax_documents = 100000\n")
    long = {"query": "q", "documents": ["word " * 150] * 2000, "model": "first"}
    found = []
    with command("--config", config) as (process, url, _):
        asking = threading.Thread(
            target=lambda: found.append(httpx.post(url + "/v1/rerank", json=long, timeout=600))
        )
        asking.start()
        until(lambda: "waiting_requests 1.0" in httpx.get(url + "/metrics").text)
        config.write_text(f"models = ['second={tiny_bert}']\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: names(url, "") == ["second"])
        asking.join()
    assert (found[0].status_code, found[0].json()["model"]) == (200, "first")


@pytest.mark.parametrize("wrong", [{"models": ["{}", "no-such-model"]}, {"collections": ["docs"]}])
def test_a_model_that_was_loaded_in_vain_is_let_go(tiny_bert, tmp_path, wrong):
    """Its threads would keep it in memory, once per failed reload."""
    models = [name.format(tiny_bert) for name in wrong.get("models", ["{}"])]
    wrong = wrong | {"models": models, "path": str(tmp_path)}
    before = threading.active_count()
    with pytest.raises(QdrantRerankError):
        create_app(ServeSettings(**wrong))
    assert threading.active_count() == before


def test_a_listener_that_others_can_reach_stays_safe(tiny_bert, tmp_path):
    """It does not move to the host that the new settings name, so they need keys all the same."""
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['first={tiny_bert}']\nhost = '0.0.0.0'\ninsecure = true\n")
    with command("--config", config) as (process, url, _):
        config.write_text(f"models = ['second={tiny_bert}']\n")
        process.send_signal(signal.SIGHUP)
        told = process.stderr.readline()
        assert "Not reloaded" in told
        assert "0.0.0.0, which others can reach" in told
        assert names(url.replace("0.0.0.0", "127.0.0.1"), "") == ["first"]


def test_tls_begins_at_a_restart(tiny_bert, tmp_path):
    """A reload that only seems to turn it on says so."""
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['first={tiny_bert}']\n")
    certificate, key = certified(tmp_path)
    with command("--config", config) as (process, _, _):
        config.write_text(f"certfile = '{certificate}'\nkeyfile = '{key}'\n")
        process.send_signal(signal.SIGHUP)
        assert "a restart alone changes certfile" in process.stderr.readline()


def test_collections_of_garbage_leave_out_what_was_loaded(tiny_bert):
    """A full one would stop all requests for 0.1 s; an application that has ended is let go."""
    settings = ServeSettings(models=[str(tiny_bert)], port=0, keep_alive_s=3600.0)
    loops, started, urls = [], threading.Event(), []

    def applications():
        gc.unfreeze()
        return WeakSet(one for one in gc.get_objects() if isinstance(one, Starlette))

    def tell(url):
        loops.append(asyncio.get_running_loop())
        urls.append(url)
        started.set()

    gc.collect()
    others = applications()
    with listening(settings) as listener, httpx.Client(timeout=600) as client:
        server = make_server(settings, listener, tell)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            assert started.wait(600)
            loaded = gc.get_freeze_count()
            assert loaded > 10_000
            for _ in range(2):
                old = applications() - others
                gc.freeze()
                assert len(old) == 1
                assert client.get(urls[0] + "/health").status_code == 200
                asyncio.run_coroutine_threadsafe(server.reload(), loops[0]).result(600)
                until(lambda: not old)  # noqa: B023
                until(lambda: len(gc.get_objects()) < 0.1 * loaded)
        finally:
            server.should_exit = True
            thread.join()
    assert gc.get_freeze_count() == 0


def logged(process, words):
    """The next line of the log with these words."""
    for line in process.stderr:
        if words in line:
            return line
    raise AssertionError("the server has ended")


def test_a_replaced_certificate_is_taken(tiny_bert, tmp_path):
    """By new connections; a key that is not the certificate's leaves the last pair in use."""
    certificate, key = certified(tmp_path)
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['{tiny_bert}']\ncertfile = '{certificate}'\nkeyfile = '{key}'\n")
    before = ssl.create_default_context(cafile=certificate)
    with command("--config", config) as (process, url, _):
        assert httpx.get(url + "/health", verify=before).status_code == 200
        certified(tmp_path)
        after = ssl.create_default_context(cafile=certificate)
        process.send_signal(signal.SIGHUP)
        logged(process, "Reloaded.")
        assert httpx.get(url + "/health", verify=after).status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(url + "/health", verify=before)
        pair = key.read_bytes()
        certified(tmp_path)
        key.write_bytes(pair)
        process.send_signal(signal.SIGHUP)
        assert "cannot be used" in logged(process, "Not reloaded")
        assert httpx.get(url + "/health", verify=after).status_code == 200


def test_what_cannot_be_used_changes_nothing(tiny_bert, tmp_path):
    """The log says why; the server goes on as it was."""
    config = tmp_path / "serve.toml"
    config.write_text(f"models = ['first={tiny_bert}']\n")
    with command("--config", config) as (process, url, lines):
        reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
        reader.start()
        for content, told in (
            ("models = ['no-such-model']\n", "no-such-model"),
            ("modls = []\n", "modls"),
            ("host = '0.0.0.0'\n", "there are no keys"),
        ):
            config.write_text(content)
            process.send_signal(signal.SIGHUP)
            until(lambda: any("Not reloaded" in line and told in line for line in lines))  # noqa: B023
            assert names(url, "") == ["first"]
        config.write_text(f"models = ['second={tiny_bert}']\nkeep_alive_s = 7\n")
        process.send_signal(signal.SIGHUP)
        until(lambda: any("a restart alone changes keep_alive_s" in line for line in lines))
        assert names(url, "") == ["second"]
        process.kill()
        reader.join()
