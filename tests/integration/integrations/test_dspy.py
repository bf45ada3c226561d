"""The DSPy retriever, in programs whose language model is DSPy's own stand-in."""

import pytest
from qdrant_client import QdrantClient

from qdrant_rerank import HybridSearcher
from qdrant_rerank.errors import InvalidInputError
from tests.integration.integrations.frameworks import BREAD, IRON, PANS, QUERY, TEXTS, needed

needed("dspy")

import dspy
from dspy.utils import DummyLM

from qdrant_rerank.integrations.dspy import QdrantRerankRetriever

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def searcher():
    """A collection with the three texts."""
    with HybridSearcher("notes", client=QdrantClient(":memory:")) as made:
        made.add([{"text": text, "page": number} for number, text in enumerate(TEXTS)])
        yield made
        made.client.close()


class Answers(dspy.Module):
    """A program that retrieves, and answers from what it found."""

    def __init__(self, searcher):
        super().__init__()
        self.retrieve = QdrantRerankRetriever(searcher, k=2)
        self.answer = dspy.Predict("context: list[str], question: str -> answer: str")

    def forward(self, question):
        """The answer, with what it is from."""
        found = self.retrieve(question).passages
        return dspy.Prediction(
            context=found, answer=self.answer(context=found, question=question).answer
        )


def test_a_program_retrieves_and_an_optimizer_copies_it(searcher):
    """The best passages first, also in the copy that an optimizer made."""
    with dspy.context(lm=DummyLM([{"answer": "1538"}] * 4)):
        program = Answers(searcher)
        assert program(question=QUERY).context == [IRON, PANS]
        example = dspy.Example(question=QUERY, answer="1538").with_inputs("question")
        optimizer = dspy.BootstrapFewShot(metric=lambda example, made, trace=None: True)
        learned = optimizer.compile(program, trainset=[example])
        assert learned.retrieve is not program.retrieve
        assert learned(question=QUERY).context == [IRON, PANS]
        assert len(learned.answer.demos) == 1


def test_a_prediction_has_the_scores_and_the_ids(searcher):
    """Of one call; a filter narrows."""
    found = QdrantRerankRetriever(searcher)(QUERY, k=1)
    assert found.passages == [IRON]
    assert found.scores == [hit.score for hit in searcher.search(QUERY, 1)]
    assert searcher.client.retrieve("notes", found.ids)[0].payload["text"] == IRON
    only = {"must": [{"key": "page", "match": {"value": 2}}]}
    assert QdrantRerankRetriever(searcher, query_filter=only)(QUERY).passages == [BREAD]


def test_wrong_arguments_are_refused_when_the_retriever_is_made(searcher):
    """With our own errors."""
    with pytest.raises(InvalidInputError, match="expected a HybridSearcher"):
        QdrantRerankRetriever("notes")
    with pytest.raises(InvalidInputError, match="k is 0"):
        QdrantRerankRetriever(searcher, k=0)
    with pytest.raises(InvalidInputError, match="query is empty"):
        QdrantRerankRetriever(searcher)(" ")
