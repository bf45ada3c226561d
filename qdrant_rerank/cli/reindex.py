"""``qdrant-rerank reindex``: build a collection again beside the old one, then switch to it.

Searches go through an alias. A new collection is filled, and then the alias moves to it in one
request, so no search meets a half-filled index. The old collection is removed last, unless another
alias stands for it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from secrets import token_hex
from typing import Any

import click

from qdrant_rerank.cli.documents import documents_in
from qdrant_rerank.cli.options import (
    ONE_OR_MORE,
    Source,
    batch_size_option,
    document_states_option,
    json_option,
    source_options,
)
from qdrant_rerank.cli.output import documents_are, print_json, say
from qdrant_rerank.cli.searchers import (
    advising,
    asking,
    recorded_states,
    searcher_for,
    storing,
)
from qdrant_rerank.errors import InvalidInputError, QdrantError

__all__ = ["reindex"]

Ask = Callable[[Callable[[Any], Any]], Any]


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@source_options
@batch_size_option
@click.option(
    "--parallel", type=ONE_OR_MORE, default=1, show_default=True, help="Requests at the same time."
)
@click.option("--keep-old", is_flag=True, help="Keep the collection that was searched before.")
@click.option("--shards", type=ONE_OR_MORE, help="Parts that a cluster spreads over its nodes.")
@click.option("--replicas", type=ONE_OR_MORE, help="Copies of each part.")
@click.option("--int8", is_flag=True, help="Search in int8 copies of the vectors.")
@click.option("--on-disk", is_flag=True, help="Keep the vectors on disk.")
@click.option(
    "--index",
    "indexes",
    multiple=True,
    metavar="FIELD:TYPE",
    help="Payload index, such as year:integer. Repeatable.",
)
@document_states_option
@json_option
def reindex(
    file: str,
    source: Source,
    batch_size: int,
    parallel: int,
    keep_old: bool,
    shards: int | None,
    replicas: int | None,
    int8: bool,
    on_disk: bool,
    indexes: tuple[str, ...],
    document_states: str | None,
    as_json: bool,
) -> None:
    """Build a collection again, and switch to it without a gap.

    FILE is JSONL, as in 'index'. The name in --collection is an alias, or is not used yet. The
    documents go into a new collection, in the language of the old one unless --language names
    another; the average length for BM25 is measured again, and states of documents are stored if
    the old one has them. When all are stored, the alias moves to it, and the old collection is
    removed, unless another alias stands for it. If anything fails, the old collection stays.
    """
    from qdrant_rerank.qdrant.settings import CollectionSettings

    settings = CollectionSettings(
        shard_number=shards,
        replication_factor=replicas,
        quantization="int8" if int8 else None,
        on_disk_vectors=on_disk or None,
        payload_indexes=dict(_index(given) for given in indexes),
    )
    alias = source.collection
    # No other run has this name, not even in the same second: it is removed if this one fails.
    new = f"{alias}-{time.strftime('%Y%m%d-%H%M%S')}-{token_hex(8)}"
    with (
        searcher_for(replace(source, collection=new)) as plain,
        documents_in(file, source.text) as documents,
    ):
        ask = asking(plain.client, alias)
        old = _target(ask, alias)
        known = recorded_states(plain.client, old)
        searcher, precision = storing(plain, source, known, document_states)
        settings = replace(settings, document_states=precision)
        try:
            with advising("The new documents are removed, and nothing is switched. Reindex again."):
                added = searcher.add(
                    documents,
                    batch_size=batch_size,
                    parallel=parallel,
                    settings=settings,
                    language=source.language or _language_of(ask, old),
                )
        except BaseException:
            with suppress(QdrantError):  # the first failure is the one to report
                ask(lambda client: client.delete_collection(new))
            raise
        # Nothing is undone from here on: a request may have worked although its answer was lost.
        stored = f"{documents_are(added)} in {new!r}"
        with _told_if_it_fails(
            f"{stored}, which is kept: {alias!r} may stand for it already. Look, and reindex "
            "again or delete the collection that is not needed."
        ):
            _switch(ask, alias, new, replaces=old is not None)
        others: list[str] = []
        if old is not None and not keep_old:
            with _told_if_it_fails(
                f"{alias!r} stands for {new!r} now, which has all documents; only "
                f"{old!r} was not removed."
            ):
                others = _aliases_of(ask, old)
                if not others:
                    ask(lambda client: client.delete_collection(old))
    kept = old if keep_old or others else None
    if as_json:
        report = {"alias": alias, "collection": new, "added": added, "replaced": old}
        print_json(report | {"kept": kept, "kept_for": others})
        return
    say(f"{stored}, which {alias!r} now stands for.")
    if others:
        say(f"{old!r} is kept: {', '.join(map(repr, others))} stands for it, too.")
    elif old is not None:
        say(f"{old!r} is {'kept' if keep_old else 'removed'}.")


@contextmanager
def _told_if_it_fails(state: str) -> Iterator[None]:
    try:
        yield
    except QdrantError:
        say(state, err=True)
        raise


def _target(ask: Ask, alias: str) -> str | None:
    """Return the collection that the alias stands for; None if there is no such alias yet.

    Raises:
        InvalidInputError: the name is that of a collection.
    """
    for one in ask(lambda client: client.get_aliases()).aliases:
        if one.alias_name == alias:
            return str(one.collection_name)
    if ask(lambda client: client.collection_exists(alias)):
        raise InvalidInputError(
            f"{alias!r} is a collection, and only an alias can be switched. Reindex under another "
            "name, search that one, and delete this collection."
        )
    return None


def _language_of(ask: Ask, collection: str | None) -> str | None:
    """Return the language of BM25 that a collection records; None if it records none."""
    from qdrant_rerank.embedders import Bm25Encoder
    from qdrant_rerank.qdrant.schema import CollectionSchema

    if collection is None:
        return None
    info = ask(lambda client: client.get_collection(collection))
    recorded = CollectionSchema.from_info(collection, info).encoder or {}
    if str(recorded.get("model")).lower() != Bm25Encoder.name.lower():
        return None
    return recorded.get("language")


def _aliases_of(ask: Ask, collection: str) -> list[str]:
    """Return the names that still stand for a collection, sorted."""
    found = ask(lambda client: client.get_aliases()).aliases
    return sorted(one.alias_name for one in found if one.collection_name == collection)


def _switch(ask: Ask, alias: str, collection: str, *, replaces: bool) -> None:
    """Let the alias stand for the collection, in one request."""
    from qdrant_client import models

    operations: list[models.AliasOperations] = [
        models.CreateAliasOperation(
            create_alias=models.CreateAlias(collection_name=collection, alias_name=alias)
        )
    ]
    if replaces:
        removal = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias))
        operations.insert(0, removal)
    ask(lambda client: client.update_collection_aliases(operations))


def _index(given: str) -> tuple[str, str]:
    name, _, kind = given.rpartition(":")
    if not name or not kind:
        raise InvalidInputError(f"--index is {given!r}; expected FIELD:TYPE, such as year:integer.")
    return name, kind
