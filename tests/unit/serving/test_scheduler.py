"""Turns at a model: whose is next, what stops, and that no score changes."""

import threading

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qdrant_rerank import TextCrossEncoder
from qdrant_rerank.errors import DeadlineError, InvalidInputError
from qdrant_rerank.serving.scheduler import (
    TEXTS_PER_CUT,
    QueueFullError,
    Scheduler,
)
from qdrant_rerank.utils.deadline import Deadline

WORDS = ["iron", "melts", "bread", "oven", "copper", "hot", "[SEP]", "é", "鉄"]


class Watched:
    """A model of one thread whose batches wait for a permit, and are written down."""

    def __init__(self, encoder, workers=1):
        self.encoder = encoder
        self.workers = workers
        self.permits = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.order = []

    def steps(self, pairs):
        return [Permitted(self, one, pairs[0][0]) for one in self.encoder.steps(pairs)]

    def has_cores_for(self, batches):
        return False

    def allow(self, batches):
        """Let so many batches run, and wait until as many have begun."""
        for _ in range(batches):
            self.wait()
            self.permits.release()

    def wait(self):
        """Wait until another batch has begun."""
        assert self.begun.acquire(timeout=60), self.order


class Permitted:
    """The steps of a request, whose batches ask for a permit."""

    def __init__(self, watched, steps, query):
        self.watched, self.steps, self.query = watched, steps, query

    def __getattr__(self, name):
        return getattr(self.steps, name)

    def run(self, batch, *, spread=False):
        self.watched.order.append(self.query)
        self.watched.begun.release()
        self.watched.permits.acquire()
        self.steps.run(batch, spread=spread)


@pytest.fixture(scope="module")
def one_by_one(bundled):
    """A model whose batches hold one pair, as those of every int8 model do."""
    return bundled


def pairs_of(query, count):
    """So many batches."""
    return [(query, WORDS[n % 3]) for n in range(count)]


def asked(scheduler, query, count, **options):
    pairs = pairs_of(query, count)
    return scheduler.submit(pairs, 10 * count, **options)


def test_a_short_request_does_not_wait_for_a_long_one(one_by_one):
    """It takes every turn but each eighth one, although the long request came first."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**9)
    long = asked(scheduler, "long", 40)
    model.allow(2)
    short = asked(scheduler, "short", 4)
    model.allow(42)
    assert len(short.future.result(60).scores) == 4
    assert len(long.future.result(60).scores) == 40
    last = max(turn for turn, query in enumerate(model.order) if query == "short")
    assert model.order[: last + 1].count("long") <= 4
    scheduler.close()


def test_a_long_request_always_moves_on(one_by_one):
    """Short requests without end leave it every eighth turn."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**9)
    long = asked(scheduler, "long", 12)
    model.allow(1)
    shorts = [asked(scheduler, "short", 1) for _ in range(80)]
    model.allow(60)
    turns = model.order[2:60]
    # Each short request takes a second turn, in which it is tokenised.
    assert turns.count("long") >= len(turns) // 8
    model.allow(80 + 12 - 61)
    assert len(long.future.result(60).scores) == 12
    assert all(len(short.future.result(60).scores) == 1 for short in shorts)
    scheduler.close()


def test_a_cancelled_request_takes_no_further_turn(one_by_one):
    """The batch that is running is its last one."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**9)
    gone = asked(scheduler, "gone", 20)
    model.wait()
    scheduler.cancel(gone)
    later = asked(scheduler, "later", 2)
    model.permits.release()
    model.allow(2)
    assert len(later.future.result(60).scores) == 2
    assert model.order == ["gone", "later", "later"]
    assert not gone.future.done()
    assert scheduler.waiting_tokens == 0
    scheduler.close()


def test_no_step_begins_after_the_deadline(one_by_one):
    """The request fails; others are scored."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**9)
    first = asked(scheduler, "first", 1)
    model.wait()
    late = asked(scheduler, "late", 1, deadline=Deadline(0.0))
    model.permits.release()
    with pytest.raises(DeadlineError):
        late.future.result(60)
    assert len(first.future.result(60).scores) == 1
    assert model.order == ["first"]
    scheduler.close()


def test_a_full_queue_refuses_and_says_for_how_long(one_by_one):
    """With one request at the model, another one beyond the limit is not taken; alone it is."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=100)
    first = scheduler.submit(pairs_of("first", 2), 500)
    with pytest.raises(QueueFullError) as refused:
        scheduler.submit(pairs_of("second", 1), 50)
    assert "the limit of 100 tokens" in str(refused.value)
    assert refused.value.retry_after_s == 1.0
    model.allow(2)
    first.future.result(60)
    model.permits.release()
    assert len(scheduler.submit(pairs_of("third", 1), 500).future.result(60).scores) == 1
    scheduler.close()


def test_what_would_not_be_done_in_time_is_refused(one_by_one):
    """At the speed that was measured; a request with more time is taken."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**9)
    first = asked(scheduler, "first", 5)
    model.allow(2)
    model.wait()  # the speed of two batches is known
    with pytest.raises(QueueFullError, match="this request would need"):
        asked(scheduler, "hasty", 5, deadline=Deadline.after(1e-6))
    patient = asked(scheduler, "patient", 1, deadline=Deadline.after(10**6))
    model.permits.release()
    model.allow(3)
    assert len(first.future.result(60).scores) == 5
    assert len(patient.future.result(60).scores) == 1
    scheduler.close()


def test_no_request_is_taken_that_makes_another_one_late(one_by_one):
    """A shorter one goes first, so the longer one's time is kept free."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**12)
    first = asked(scheduler, "first", 3)
    model.allow(2)
    model.wait()
    second = int(scheduler.tokens_per_s)  # tokens, as many as the model reads in a second
    kept = scheduler.submit(pairs_of("long", 1), 100 * second, Deadline.after(160))
    with pytest.raises(QueueFullError, match="would overtake another one") as refused:
        scheduler.submit(pairs_of("short", 1), 49 * second, Deadline.after(1000))
    assert 90 < refused.value.retry_after_s < 110  # until the longer one has its answer
    with pytest.raises(QueueFullError, match="would overtake another one"):  # 120 s are sure
        scheduler.submit(pairs_of("short", 1), 40 * second, Deadline.after(1000))
    similar = scheduler.submit(pairs_of("similar", 1), 70 * second, Deadline.after(1000))
    shorter = scheduler.submit(pairs_of("short", 1), 15 * second, Deadline.after(1000))
    late = scheduler.submit(pairs_of("longer", 1), 110 * second)  # overtakes nobody
    model.permits.release()
    model.allow(4)
    for job in (first, kept, similar, shorter, late):
        assert len(job.future.result(60).scores) == len(job.pairs)
    assert model.order.index("long") < model.order.index("similar")
    scheduler.close()


def test_a_shorter_one_does_not_let_others_past_a_request_that_they_make_late(one_by_one):
    """With it, those of more than half of the other's length go before the other, too."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**12)
    first = asked(scheduler, "first", 3)
    model.allow(2)
    model.wait()
    second = int(scheduler.tokens_per_s)
    kept = scheduler.submit(pairs_of("long", 1), 25 * second, Deadline.after(60))
    others = [scheduler.submit(pairs_of("other", 1), 15 * second) for _ in range(7)]
    with pytest.raises(QueueFullError, match="would overtake another one"):
        scheduler.submit(pairs_of("short", 1), 10 * second)
    model.permits.release(10**6)
    for job in (first, kept, *others):
        assert len(job.future.result(60).scores) == len(job.pairs)
    assert model.order.index("long") < model.order.index("other")
    scheduler.close()


def test_what_estimates_were_off_by_lately_is_reckoned_with(one_by_one):
    """Of codes or names, a fourth of the letters is far less than the tokens."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**12)
    pairs = pairs_of("first", 3)
    first = scheduler.submit(pairs, one_by_one.token_count(pairs) // 2)
    model.allow(2)
    model.wait()
    second = int(scheduler.tokens_per_s)
    waiting = scheduler.submit(pairs_of("waiting", 1), 10 * second)
    with pytest.raises(QueueFullError, match=r"would need 4\d\.\d s, and it has"):
        scheduler.submit(pairs_of("late", 1), 10 * second, Deadline.after(35))
    model.permits.release(10**6)
    for job in (first, waiting):
        assert len(job.future.result(60).scores) == len(job.pairs)
    scheduler.close()


def test_a_request_of_most_of_the_queue_is_taken_beside_short_ones(one_by_one):
    """What it leaves free is an eighth of the queue at most."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**6)
    first = asked(scheduler, "first", 3)
    model.allow(2)
    model.wait()
    long = scheduler.submit(pairs_of("long", 1), 520_000)
    with pytest.raises(QueueFullError, match="125,000 tokens left free for shorter ones"):
        scheduler.submit(pairs_of("long", 1), 360_000)
    model.permits.release(10**6)
    for job in (first, long):
        assert len(job.future.result(60).scores) == len(job.pairs)
    scheduler.close()


def test_an_idle_server_is_not_waited_for_any_longer(one_by_one):
    """A request that the queue never holds is to come again when nobody is at work."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**6)
    first = asked(scheduler, "first", 3)
    model.allow(2)
    model.wait()
    second = int(scheduler.tokens_per_s)
    waiting = scheduler.submit(pairs_of("second", 1), 5 * second)
    with pytest.raises(QueueFullError) as refused:
        scheduler.submit(pairs_of("third", 1), 10**7)
    assert refused.value.retry_after_s < 10
    model.permits.release(10**6)
    for job in (first, waiting):
        assert len(job.future.result(60).scores) == len(job.pairs)
    scheduler.close()


def test_a_long_request_is_refused_before_a_short_one(one_by_one):
    """It leaves room in the queue, and nobody is refused for the sake of its time."""
    model = Watched(one_by_one)
    scheduler = Scheduler(model, queue_tokens=10**8)
    first = asked(scheduler, "first", 3)
    model.allow(2)
    model.wait()
    # Its time suffices for itself alone.
    deadline = Deadline.after(1.4 * 10**7 / scheduler.tokens_per_s)
    jobs = [scheduler.submit(pairs_of("long", 1), 10**7, deadline)]
    jobs += [scheduler.submit(pairs_of("long", 1), 10**7) for _ in range(7)]
    with pytest.raises(QueueFullError, match="tokens left free for shorter ones"):
        scheduler.submit(pairs_of("long", 1), 10**7)
    jobs += [scheduler.submit(pairs_of("short", 1), 10**5) for _ in range(198)]
    with pytest.raises(QueueFullError, match="the limit of 100,000,000 tokens"):
        scheduler.submit(pairs_of("short", 1), 10**5)
    model.permits.release(10**6)
    for job in (first, *jobs):
        assert len(job.future.result(60).scores) == len(job.pairs)
    scheduler.close()


def test_what_was_taken_is_finished_at_the_end(one_by_one):
    """Closing waits for it."""
    scheduler = Scheduler(one_by_one, queue_tokens=10**9)
    jobs = [asked(scheduler, f"q{n}", 5) for n in range(4)]
    scheduler.close()
    assert [len(job.future.result(timeout=0).scores) for job in jobs] == [5, 5, 5, 5]


def test_a_request_that_fails_leaves_the_others_alone(one_by_one):
    """Its future has the error."""
    scheduler = Scheduler(one_by_one, queue_tokens=10**9)
    wrong = scheduler.submit([("q", 7)], 10)
    right = asked(scheduler, "q", 3)
    with pytest.raises(InvalidInputError):
        wrong.future.result(60)
    assert len(right.future.result(60).scores) == 3
    scheduler.close()


TEXTS = st.lists(st.sampled_from(WORDS), min_size=1, max_size=60).map(" ".join)
REQUESTS = st.lists(
    st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=12)), min_size=1, max_size=6
)


@pytest.mark.parametrize("kind", ["fp32", "int8", "windows", "cached"])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(requests=REQUESTS)
def test_scores_are_those_of_the_library_to_the_bit(kind, requests, tiny_bert, bundled):
    """Whatever other requests are at the model at the same time."""
    if kind == "int8":
        encoder = bundled
    elif kind == "windows":
        encoder = _kept(tiny_bert, max_length=32, long_documents="windows")
    else:
        encoder = _kept(tiny_bert, score_cache=10**6 if kind == "cached" else None)
    scheduler = Scheduler(encoder, queue_tokens=10**9)
    pairs = [[(query, text) for text in texts] for query, texts in requests]
    jobs = [scheduler.submit(each, 100) for each in pairs]
    for each, job in zip(pairs, jobs, strict=True):
        alone = (encoder if kind != "cached" else _kept(tiny_bert)).score_pairs(each)
        found = job.future.result(60)
        np.testing.assert_array_equal(found.scores, alone.scores)
        np.testing.assert_array_equal(found.logits, alone.logits)
        np.testing.assert_array_equal(found.truncated, alone.truncated)
        assert found.spans == alone.spans
    scheduler.close()


class Held:
    """A model of two threads, which holds the request "held" while its scores are made."""

    workers = 2

    def __init__(self, encoder):
        self.encoder = encoder
        self.finishing, self.permit = threading.Event(), threading.Event()

    def steps(self, pairs):
        steps = self.encoder.steps(pairs)
        return [HeldSteps(self, one) for one in steps] if pairs[0][0] == "held" else steps

    def has_cores_for(self, batches):
        return False


class HeldSteps:
    """The steps of the request that is held."""

    def __init__(self, model, steps):
        self.model, self.steps = model, steps

    def __getattr__(self, name):
        return getattr(self.steps, name)

    def finish(self):
        self.model.finishing.set()
        assert self.model.permit.wait(60)
        return self.steps.finish()


def test_a_request_that_the_cache_answers_is_finished_once(tiny_bert):
    """A second thread that looks for work meanwhile leaves it alone."""
    encoder = TextCrossEncoder(tiny_bert, score_cache=10**6)
    known = encoder.score_pairs([("held", "iron"), ("held", "bread")])
    model = Held(encoder)
    scheduler = Scheduler(model, queue_tokens=10**9)
    held = scheduler.submit([("held", "iron"), ("held", "bread")], 20)
    assert model.finishing.wait(60)
    other = asked(scheduler, "other", 3)
    assert len(other.future.result(60).scores) == 3
    assert not held.future.done()
    model.permit.set()
    np.testing.assert_array_equal(held.future.result(60).scores, known.scores)
    scheduler.close()


def test_more_pairs_than_a_block_holds(tiny_bert):
    """Blocks are tokenised one after the other, and joined in order."""
    pairs = [("q", f"{WORDS[n % 5]} {n}") for n in range(1100)]
    encoder = _kept(tiny_bert)
    scheduler = Scheduler(encoder, queue_tokens=10**9)
    found = scheduler.submit(pairs, 10_000).future.result(60)
    np.testing.assert_array_equal(found.scores, encoder.score_pairs(pairs).scores)
    scheduler.close()


_encoders = {}


def _kept(path, **options):
    key = tuple(sorted(options.items(), key=str))
    if key not in _encoders:
        _encoders[key] = TextCrossEncoder(path, **options)
    return _encoders[key]


def test_a_cut_takes_turns_and_ends_at_the_deadline(tiny_bert):
    """A short request comes between two parts of it; scores are those of the cut texts."""
    encoder = TextCrossEncoder(tiny_bert)
    cut, begun, go = [], threading.Event(), threading.Event()

    class Watching(Watched):
        def cut(self, texts, tokens):
            cut.append(len(texts))
            begun.set()
            assert go.wait(60)
            return encoder.cut(texts, tokens)

    model = Watching(encoder)
    model.permits = threading.Semaphore(10**6)
    scheduler = Scheduler(model, queue_tokens=10**9)
    texts = ["iron melts hot bread oven"] * (2 * TEXTS_PER_CUT + 1)
    pairs = [("long", text) for text in texts]
    long = scheduler.submit(pairs, 10**4, document_tokens=2)
    assert begun.wait(60)
    short = scheduler.submit([("short", "iron")], 1)
    late = scheduler.submit(pairs, 10**4, Deadline.after(1e-9), document_tokens=2)
    go.set()
    short.future.result(60)
    expected = encoder.rerank("long", encoder.cut(texts, 2))
    assert long.future.result(60).scores.tolist() == expected
    with pytest.raises(DeadlineError):
        late.future.result(60)
    scheduler.close()
    assert cut == [TEXTS_PER_CUT, TEXTS_PER_CUT, 1]
    assert model.order[0] == "short"
