"""``qdrant-rerank serve``: a reranking server."""

import click

from qdrant_rerank.cli.output import say
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.hub.specs import DEFAULT_RERANKER

__all__ = ["serve"]


@click.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Cross-encoder: a name from 'models', a hub repository or a path; NAME=MODEL lets "
    f"clients ask for it by another name. Repeatable; default: {DEFAULT_RERANKER}.",
)
@click.option(
    "--collection",
    "collections",
    multiple=True,
    help="Collection that can be searched. Repeatable.",
)
@click.option("--url", help="URL of its Qdrant server; else QDRANT_URL. Its key: QDRANT_API_KEY.")
@click.option("--path", help="Directory of an embedded Qdrant; else QDRANT_PATH.")
@click.option("--text", multiple=True, help="Payload field with the text; default: auto.")
@click.option("--embedder", help="Dense encoder of the collections; default: the bundled one.")
@click.option("--language", help="Language of BM25.")
@click.option("--host", help="Address to listen on; default: 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65535), help="Default: 8080; 0 for any free one.")
@click.option("--config", type=click.Path(), help="TOML file with these and further settings.")
@click.option("--api-key-file", type=click.Path(), help="File with one bearer key per line.")
@click.option(
    "--insecure", is_flag=True, help="Listen without keys where other machines can connect."
)
@click.option("--certfile", type=click.Path(), help="Certificate chain, for TLS.")
@click.option("--keyfile", type=click.Path(), help="Key of the certificate.")
@click.option("--threads", type=click.IntRange(min=1), help="Batches at a time; default: cores.")
@click.option("--precision", help="Of the model: auto, fp32, fp16, int8 or bf16.")
@click.option("--max-length", type=click.IntRange(min=1), help="Tokens of a pair, at most.")
@click.option("--ray", "on_ray", is_flag=True, help="Serve on a Ray cluster: see --replicas.")
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="With --ray: processes with the models, each with as many cores as --threads; default: 1.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(min=1),
    help="With --ray: more of them start while tokens wait.",
)
def serve(
    models: tuple[str, ...],
    collections: tuple[str, ...],
    url: str | None,
    path: str | None,
    text: tuple[str, ...],
    embedder: str | None,
    language: str | None,
    host: str | None,
    port: int | None,
    config: str | None,
    api_key_file: str | None,
    insecure: bool,
    certfile: str | None,
    keyfile: str | None,
    threads: int | None,
    precision: str | None,
    max_length: int | None,
    on_ray: bool,
    replicas: int | None,
    max_replicas: int | None,
) -> None:
    """Answer reranking requests of TEI's, Cohere's, Jina's and vLLM's clients.

    Ctrl-C ends it, after the requests that it has accepted. SIGHUP reads --config, --api-key-file
    and the certificate again and loads the models again, while requests go on.
    """
    if not on_ray and (replicas or max_replicas):
        raise InvalidInputError("--replicas and --max-replicas are for Ray. Pass --ray as well.")
    from qdrant_rerank.serving import ServeSettings
    from qdrant_rerank.serving.json_logs import log_as_json
    from qdrant_rerank.serving.keys import read_keys
    from qdrant_rerank.serving.run import listening, make_server

    named: dict[str, object] = {
        "models": models,
        "collections": collections,
        "url": url,
        "path": path,
        "text": text,
        "embedder": embedder,
        "language": language,
        "host": host,
        "insecure": insecure,
        "certfile": certfile,
        "keyfile": keyfile,
        "threads": threads,
        "precision": precision,
        "max_length": max_length,
    }
    given = {name: value for name, value in named.items() if value}
    if port is not None:  # 0 is one
        given["port"] = port

    def read() -> ServeSettings:
        found = ServeSettings() if config is None else ServeSettings.read(config)
        found = found.changed(given, "The command line")
        return found if api_key_file is None else found.with_keys(read_keys(api_key_file))

    settings = read()
    if on_ray:
        from qdrant_rerank.distributed.deployment import serve_until_interrupted

        fewest = replicas or 1
        serve_until_interrupted(
            settings,
            lambda url: say(f"Listening on {url}", err=True),
            replicas=(fewest, max_replicas or fewest),
        )
        return
    with listening(settings) as listener:
        server = make_server(
            settings, listener, lambda url: say(f"Listening on {url}", err=True), read
        )
        log_as_json()
        server.run(sockets=[listener])
