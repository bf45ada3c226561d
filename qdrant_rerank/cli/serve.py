"""``qdrant-rerank serve``: a reranking server."""

from typing import Any

import click

from qdrant_rerank.cli.output import say
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
    default=1,
    help="With --ray: processes with the models, each with as many cores as --threads; default: 1.",
)
@click.option(
    "--max-replicas",
    type=click.IntRange(min=1),
    help="With --ray: more of them start while tokens wait.",
)
def serve(
    models: tuple[str, ...],
    config: str | None,
    api_key_file: str | None,
    on_ray: bool,
    replicas: int,
    max_replicas: int | None,
    **options: Any,
) -> None:
    """Answer reranking requests of TEI's, Cohere's, Jina's and vLLM's clients.

    Ctrl-C ends it, after the requests that it has accepted.
    """
    from qdrant_rerank.serving import ServeSettings
    from qdrant_rerank.serving.json_logs import log_as_json
    from qdrant_rerank.serving.keys import read_keys
    from qdrant_rerank.serving.run import listening, make_server

    settings = ServeSettings() if config is None else ServeSettings.read(config)
    given: dict[str, Any] = {name: value for name, value in options.items() if value}
    if options["port"] == 0:
        given["port"] = 0
    if models:
        given["models"] = models
    settings = settings.changed(given, "The command line")
    if api_key_file is not None:
        settings = settings.with_keys(read_keys(api_key_file))
    if on_ray:
        from qdrant_rerank.distributed.deployment import serve_until_interrupted

        count = replicas if max_replicas is None else (replicas, max_replicas)
        serve_until_interrupted(
            settings, lambda url: say(f"Listening on {url}", err=True), replicas=count
        )
        return
    with listening(settings) as listener:
        server = make_server(settings, listener, lambda url: say(f"Listening on {url}", err=True))
        log_as_json()
        server.run(sockets=[listener])
