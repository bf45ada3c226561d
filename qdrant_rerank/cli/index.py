"""``qdrant-rerank index``: add documents to a collection."""

import click

from qdrant_rerank.cli.documents import documents_in
from qdrant_rerank.cli.options import (
    Source,
    batch_size_option,
    document_states_option,
    json_option,
    source_options,
)
from qdrant_rerank.cli.output import counted, documents_are, print_json, say
from qdrant_rerank.cli.searchers import (
    advising,
    asking,
    qdrant_place,
    recorded_states,
    searcher_for,
    storing,
)
from qdrant_rerank.errors import QdrantRequestError

__all__ = ["index"]


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@source_options
@batch_size_option
@document_states_option
@json_option
def index(
    file: str, source: Source, batch_size: int, document_states: str | None, as_json: bool
) -> None:
    """Add the documents of a FILE to a collection.

    FILE is JSONL, gzipped or not, or '-' for stdin. A line is a JSON object (the payload) or a JSON
    string (the text). Ids are made from texts and payloads, so a file that is indexed twice adds
    nothing the second time. A line that has changed, or another --text, makes another id, and so
    adds the document again.
    """
    from qdrant_rerank.qdrant.settings import CollectionSettings

    qdrant_place(source.url, source.path, create=True)  # before anything is read
    with (
        documents_in(file, source.text) as documents,
        searcher_for(source, create=True) as plain,
    ):
        known = recorded_states(plain.client, source.collection)
        searcher, precision = storing(plain, source, known, document_states)
        settings = CollectionSettings(document_states=precision)
        with advising("Index again: what is stored is not stored twice."):
            added = searcher.add(documents, batch_size=batch_size, settings=settings)
        ask = asking(searcher.client, source.collection)
        try:
            holds = ask(lambda client: client.count(source.collection)).count
        except QdrantRequestError:  # strict mode may allow no exact counts
            holds = ask(lambda client: client.count(source.collection, exact=False)).count
    if as_json:
        print_json({"collection": source.collection, "added": added, "holds": holds})
    elif added == holds:
        say(f"{documents_are(added)} in {source.collection!r}.")
    else:
        say(f"{counted(added, 'document')} added; {source.collection!r} holds {holds:,}.")
