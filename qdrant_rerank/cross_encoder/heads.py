"""Heads: which column of a model's output is relevance.

========================  =======================================================================
one label                 this label
two labels                the label that the configuration names as relevance (relevant, yes, true,
                          entailment, LABEL_1, ...); column 1 if it names none; the label that the
                          caller chooses if it has other names
several labels            the label that the caller chooses
yes and no tokens         of a language model, at the last position: the logit of yes minus the
                          logit of no; its sigmoid is the probability of yes among the two
========================  =======================================================================
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qdrant_rerank.errors import InvalidInputError, ModelOutputError
from qdrant_rerank.utils.validation import shown

__all__ = ["Head", "Label", "choose_head", "label_logits"]

#: A label's name in the model's configuration, or its column.
Label = str | int

# Names in two-label heads on the hub; compared in lower case, with underscores as separators.
RELEVANT_NAMES = frozenset(
    "1 entailment label_1 match positive relevance relevant related true yes".split()
)
MOST_LABELS_LISTED = 20


@dataclass(frozen=True, slots=True)
class Head:
    """The rule by which relevance is read from label logits.

    Attributes:
        labels: number of columns.
        column: the column that is relevance.
        log_odds: whether relevance is column 1 minus column 0 (yes and no tokens).
    """

    labels: int
    column: int = 0
    log_odds: bool = False

    def relevance(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map logits (n, labels) to relevance (n,), float32, unbounded."""
        if self.log_odds:
            return logits[:, 1] - logits[:, 0]
        return logits[:, self.column]


def label_logits(
    output: NDArray[np.float32], pairs: int, path: Path, no_yes: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Reshape the output of a batch to one row of labels per pair.

    Args:
        output: shape (n,) or (n, labels). A language model may also give (n, vocabulary), or
            (n, 2) if its export kept only (no, yes).
        pairs: n.
        path: the ONNX file, named in errors.
        no_yes: ids of the two tokens that a language model answers with.

    Returns:
        Shape (n, labels), float32.

    Raises:
        ModelOutputError: another shape.
    """
    if output.shape == (pairs,):
        return output[:, None]
    if output.ndim == 2 and len(output) == pairs and output.shape[1]:
        if no_yes is None or output.shape[1] <= 2:
            return output
        if output.shape[1] > max(no_yes):
            return output[:, list(no_yes)]
    raise ModelOutputError(
        f"{path} returned shape {output.shape} for {pairs} pair(s); a reranker returns one score "
        "(n, 1) or (n,), or labels (n, labels)"
        + ("" if no_yes is None else f", or logits of tokens up to id {max(no_yes)}")
        + ". Is it an embedding or another model?"
    )


def choose_head(
    logits: NDArray[np.float32],
    names: Sequence[str],
    label: Label | None,
    path: Path,
    *,
    no_yes: bool = False,
) -> Head:
    """Choose the head by the output of a first batch.

    Args:
        logits: shape (n, labels), as :func:`label_logits` returns them.
        names: names of the labels, in order; may be empty.
        label: the caller's choice; None for the rule in the module's docstring.
        path: the ONNX file, named in errors.
        no_yes: whether the columns are a language model's no and yes tokens.

    Raises:
        InvalidInputError: no such label.
        ModelOutputError: the names do not tell which label is relevance, and the caller chose none.
    """
    count = logits.shape[1]
    if no_yes and count == 2:
        if label is not None:
            raise InvalidInputError(
                f"label is {shown(label)}, but {path} answers with yes and no tokens. Leave "
                "label out."
            )
        return Head(2, column=1, log_odds=True)
    names = names if len(names) == count else ()
    if label is not None:
        return Head(count, _column(label, names, count, path))
    if count == 1:
        return Head(1)
    if count == 2 and (column := _relevant(names)) is not None:
        return Head(2, column)
    raise ModelOutputError(
        f"{path} returned shape {logits.shape} for {len(logits)} pair(s): {count} labels, "
        f"{_listed(names, count)}. Pass the one that is relevance: label={_example(names)}."
        + (" Is it an embedding or another classifier?" if count > 2 else "")
    )


def _relevant(names: Sequence[str]) -> int | None:
    """Return the column of two that is named as relevance; None if the names do not tell."""
    if not names:
        return 1
    plain = [name.strip().lower().replace(" ", "_").replace("-", "_") for name in names]
    named = [column for column, name in enumerate(plain) if name in RELEVANT_NAMES]
    return named[0] if len(named) == 1 else None


def _column(label: Label, names: Sequence[str], count: int, path: Path) -> int:
    if isinstance(label, str) and list(names).count(label) == 1:
        return list(names).index(label)
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < count:
        return label
    raise InvalidInputError(
        f"label is {shown(label)}, but {path} has {_listed(names, count)}. Pass one of them, by "
        f"{'name or number' if names else 'number'}."
    )


def _listed(names: Sequence[str], count: int) -> str:
    if not names:
        return f"labels 0 to {count - 1} without names" if count > 1 else "one label, 0"
    shown = ", ".join(f"{i}: {name!r}" for i, name in enumerate(names[:MOST_LABELS_LISTED]))
    return f"the labels {shown}{', ...' if count > MOST_LABELS_LISTED else ''}"


def _example(names: Sequence[str]) -> str:
    return repr(names[0]) if names else "0"
