"""``qdrant-rerank reindex``: build a collection anew beside the old one, then switch to it.

Searches go through an alias. A new collection is filled behind it, checked, and the alias moves to
it in one request, so no search finds a half-filled index; then the old one is removed.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from qdrant_rerank.cli.files import (
    documents_in,
)
from qdrant_rerank.cli.shared import (
    collection_options,
    documents_are,
    json_option,
    print_json,
    searcher_for,
)
from qdrant_rerank.errors import InvalidInputError, QdrantError

if TYPE_CHECKING:
    from qdrant_rerank.qdrant.transport.driver import Driver

__all__ = ["reindex"]


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@collection_options
@click.option("--batch-size", default=256, show_default=True, help="Documents a request.")
@click.option("--parallel", default=1, show_default=True, help="Requests at a time.")
@click.option("--keep-old", is_flag=True, help="Keep the collection that was searched before.")
@click.option("--shards", type=int, help="Parts that a cluster spreads over its nodes.")
@click.option("--replicas", type=int, help="Copies of each part.")
@click.option("--int8", is_flag=True, help="Search in int8 copies of the vectors.")
@click.option("--on-disk", is_flag=True, help="Keep the vectors on disk.")
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="FIELD:TYPE",
    help="Payload index, such as year:integer. May be repeated.",
)
@json_option
def reindex(
    file: str,
    collection: str,
    url: str | None,
    path: str | None,
    text: tuple[str, ...],
    embedder: str,
    batch_size: int,
    parallel: int,
    keep_old: bool,
    shards: int | None,
    replicas: int | None,
    int8: bool,
    on_disk: bool,
    indexes: tuple[str, ...],
    as_json: bool,
) -> None:
    """Build the index of a JSONL FILE ('-' for stdin) anew, and switch to it with no gap.

    COLLECTION is an alias, or a name that nothing has yet: the documents go into a new collection,
    and once all are stored the alias moves to it. If anything fails, the old index stays.
    """
    from qdrant_rerank.qdrant.settings import CollectionSettings
    from qdrant_rerank.qdrant.transport.driver import CallLimits, Driver

    settings = CollectionSettings(
        shard_number=shards,
        replication_factor=replicas,
        quantization="int8" if int8 else None,
        on_disk_vectors=on_disk or None,
        payload_indexes=dict(_index(given) for given in indexes),
    )
    new = f"{collection}-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1000:03}"
    with (
        searcher_for(new, url, path, text, embedder, None) as searcher,
        documents_in(file, text) as documents,
    ):
        talk = Driver(searcher.client, collection, CallLimits())
        old = _target(talk, collection)
        try:
            added = searcher.add(
                documents,
                batch_size=batch_size,
                parallel=parallel,
                settings=settings,
            )
        except BaseException:
            with suppress(QdrantError):  # what failed first is what is told
                talk.ask(lambda client, timeout: client.delete_collection(new))
            raise
        # Neither is undone from here on: a request whose answer was lost may have been carried out.
        stored = f"{documents_are(added)} in {new!r}"
        with _saying_if_it_fails(
            f"{stored}, which is kept: {collection!r} may stand for "
            "it already. Look, and reindex again or delete the one that is not needed."
        ):
            _switch(talk, collection, new, replaces=old is not None)
        if old is not None and not keep_old:
            with _saying_if_it_fails(
                f"{collection!r} stands for {new!r} now, which has all documents; only "
                f"{old!r} was not removed."
            ):
                talk.ask(lambda client, timeout: client.delete_collection(old))
    if as_json:
        print_json({"alias": collection, "collection": new, "added": added, "replaced": old})
        return
    click.echo(f"{stored}, which {collection!r} now stands for.")
    if old is not None:
        click.echo(f"{old!r} is {'kept' if keep_old else 'removed'}.")


@contextmanager
def _saying_if_it_fails(state: str) -> Iterator[None]:
    try:
        yield
    except QdrantError:
        click.echo(state, err=True)
        raise


def _target(talk: "Driver", alias: str) -> str | None:
    """The collection that the alias stands for; None if there is no such alias yet.

    Raises:
        InvalidInputError: it is a collection itself.
    """
    found = talk.ask(lambda client, timeout: client.get_aliases())
    for one in found.aliases:
        if one.alias_name == alias:
            return str(one.collection_name)
    if talk.ask(lambda client, timeout: client.collection_exists(alias)):
        raise InvalidInputError(
            f"{alias!r} is a collection, and only an alias can be switched. Reindex under another "
            "name, search that one, and delete this collection."
        )
    return None


def _switch(talk: "Driver", alias: str, collection: str, *, replaces: bool) -> None:
    """Let the alias stand for the collection, in one request."""
    from qdrant_client import models

    operations: list[models.AliasOperations] = []
    if replaces:
        operations.append(
            models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        )
    operations.append(
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
    )
    talk.ask(lambda client, timeout: client.update_collection_aliases(operations))


def _index(given: str) -> tuple[str, str]:
    name, _, kind = given.rpartition(":")
    if not name or not kind:
        raise InvalidInputError(f"--index is {given!r}; expected FIELD:TYPE, such as year:integer.")
    return name, kind
