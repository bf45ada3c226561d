"""The models of a server: loaded at its start, found by name, each with its own turns."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qdrant_rerank.cross_encoder.state_scorer import STORED_SHARE, StoredText
from qdrant_rerank.cross_encoder.text_cross_encoder import TextCrossEncoder
from qdrant_rerank.errors import InvalidInputError
from qdrant_rerank.serving.not_served import NotServedError
from qdrant_rerank.serving.scheduler import Meter, Scheduler
from qdrant_rerank.serving.settings import ServeSettings

__all__ = ["Models", "ServedModel"]

# Characters per token, for an estimate before a text is tokenised: English has 4 to 6, and a
# Chinese character is one or two tokens.
ASCII_PER_TOKEN = 4
OTHERS_PER_TOKEN = 1
SPECIAL_TOKENS = 3
SHOWN = 3  # names of models in the error for another one


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A loaded model and its turns.

    Attributes:
        name: by which clients ask for it.
        encoder: the model.
        scheduler: lets requests take turns.
        reads_all: whether long documents are read whole, in passages.
    """

    name: str
    encoder: TextCrossEncoder
    scheduler: Scheduler
    reads_all: bool

    def estimate(self, pairs: Iterable[tuple[str, str]], document_tokens: int | None = None) -> int:
        """Estimate the tokens of pairs from the lengths of their texts.

        Args:
            pairs: (query, document) texts; one with stored states counts by its time.
            document_tokens: tokens of a document that are read; None for the model's limit.
        """
        most = self.encoder.max_length
        total = 0
        for query, document in pairs:
            read = _tokens_of(document)
            if document_tokens is not None:
                read = min(read, document_tokens)
            tokens = SPECIAL_TOKENS + _tokens_of(query) + read
            tokens = tokens if self.reads_all else min(tokens, most)
            if isinstance(document, StoredText) and document.record is not None:
                tokens = 1 + tokens // STORED_SHARE
            total += tokens
        return total


class Models:
    """The models of a server.

    Args:
        models: at least one; requests that name no model get the first.
    """

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self.served = list(models)
        self._by_name = {model.name.lower(): model for model in models}

    @classmethod
    def load(cls, settings: ServeSettings, meter: Meter | None = None) -> "Models":
        """Load the models of the settings.

        Raises:
            InvalidInputError: two models have the same name, or an option does not fit a model.
            ModelError: a model cannot be found or loaded.
        """
        served: list[ServedModel] = []
        try:
            for given in settings.models:
                served.append(_load(given, settings, meter, [model.name for model in served]))
        except BaseException:
            cls(served).close()  # whose threads would keep the models in memory
            raise
        return cls(served)

    def find(self, name: str | None) -> ServedModel:
        """Return the model of a name, whose case does not count; the first one for None and "".

        Raises:
            NotServedError: the server was not started with such a model.
        """
        if not name:
            return self.served[0]
        found = self._by_name.get(name.lower())
        if found is None:
            names = [model.name for model in self.served]
            near = difflib.get_close_matches(name, names, n=SHOWN, cutoff=0.0)
            raise NotServedError(
                f"The model {name!r:.80} is not served here; expected one of GET /v1/models, "
                f"such as {', '.join(map(repr, near))}."
            )
        return found

    def close(self) -> None:
        """Finish what was taken, and end the threads."""
        for model in self.served:
            model.scheduler.close()


def _load(
    given: str, settings: ServeSettings, meter: Meter | None, others: Sequence[str]
) -> ServedModel:
    """Load one model, whose name is none of the others'."""
    given_name, model = _named(given)
    encoder = TextCrossEncoder(
        model,
        cache_dir=settings.cache_dir,
        threads=settings.threads,
        device=settings.device,
        precision=settings.precision,
        engine=settings.engine,
        max_length=settings.max_length,
        activation=settings.activation,
        long_documents=settings.long_documents,
        local_files_only=settings.local_files_only,
    )
    name = given_name or encoder.model_name
    if name.lower() in {other.lower() for other in others}:
        raise InvalidInputError(
            f"Two models have the name {name!r}. Give one of them another name: "
            f"--model other-name={model}."
        )
    scheduler = Scheduler(encoder, queue_tokens=settings.queue_tokens, meter=meter, name=name)
    reads_all = settings.long_documents == "windows"
    return ServedModel(name, encoder, scheduler, reads_all)


def _tokens_of(text: str) -> int:
    return len(text) // (ASCII_PER_TOKEN if text.isascii() else OTHERS_PER_TOKEN)


def _named(given: str) -> tuple[str, str]:
    """Return the name and the model of "name=model"; the name is "" if there is none."""
    name, equals, model = given.partition("=")
    return (name.strip(), model.strip()) if equals else ("", given.strip())
