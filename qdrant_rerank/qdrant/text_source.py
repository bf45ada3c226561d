"""Where a collection's texts are: as it records it, or as its points have them."""

from qdrant_rerank.payload import SAMPLE, TextChoice
from qdrant_rerank.qdrant.lookups import hidden
from qdrant_rerank.qdrant.schema import CollectionSchema
from qdrant_rerank.qdrant.transport.driver import Driver

__all__ = ["NEW_TEXT", "settle_by_record", "settle_for_add"]

#: Payload field of the texts that ``add`` stores, unless it is told another.
NEW_TEXT = "text"


def settle_by_record(choice: TextChoice, schema: CollectionSchema) -> None:
    """Take the text source that a collection records, if nothing is chosen yet."""
    if schema.text is not None:
        choice.settle(schema.text)
    elif schema.is_ours:  # by a release that recorded none, whose default it was
        choice.preferred = NEW_TEXT


async def settle_for_add(driver: Driver, choice: TextChoice, schema: CollectionSchema) -> None:
    """Choose where the texts of new documents are, if nothing is chosen yet.

    The collection's record says it, else its points do; if they have no text it is ``NEW_TEXT``.

    Raises:
        MissingTextError: several fields of its points may be meant.
    """
    settle_by_record(choice, schema)
    if choice.settled:
        return
    records, _ = await driver.request(
        lambda client, timeout: client.scroll(
            schema.collection,
            limit=SAMPLE,
            with_payload=True if schema.states is None else hidden(True),
            timeout=timeout,
        )
    )
    choice.choose((record.payload for record in records), NEW_TEXT)
