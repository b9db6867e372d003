"""The walker's kernel against plain autograd, and what may not be seen: the fact that is asked for."""

import numpy as np
import pytest
import torch

from trainers import kernels
from trainers.kernels import walker
from trainers.parts.mosaic.facts import Facts
from trainers.parts.mosaic.walker import Walker, Ways

needs_kernel = pytest.mark.skipif(kernels.library() is None, reason="the C kernels are not built")
ENTITIES, RELATIONS = 40, 3
CPU = torch.device("cpu")


def triples(count: int = 60) -> np.ndarray:
    """Facts among all but the last five entities, some of them loops."""
    draw = np.random.default_rng(0)
    ends, relation = draw.integers(ENTITIES - 5, size=(2, count)), draw.integers(RELATIONS, size=count)
    return np.unique(np.stack([ends[0], relation, ends[1]], 1), axis=0)


def ways_of(facts: np.ndarray) -> Ways:
    return Ways(Facts(facts, ENTITIES, RELATIONS), CPU)


def model(depth: int = 3, width: int = 16) -> Walker:
    """A walker all of whose parameters differ from where they begin."""
    draw = torch.Generator().manual_seed(0)
    made = Walker(2 * RELATIONS, depth, width, draw)
    with torch.no_grad():
        for one in made.parameters():
            one += 0.3 * torch.randn(one.shape, generator=draw)
    return made


def asked(facts: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Every third fact, asked for its tail, and every fourth for its head."""
    head, relation, tail = torch.from_numpy(facts[::3]).T
    h, r, t = torch.from_numpy(facts[::4]).T
    return torch.cat([head, t]), torch.cat([relation, r + RELATIONS]), torch.cat([tail, h])


@needs_kernel
@pytest.mark.parametrize(("depth", "width"), [(1, 16), (3, 16), (2, 32), (6, 32)])
def test_losses_and_gradients_are_those_of_plain_torch(monkeypatch, depth, width):
    facts = triples()
    ways, one = ways_of(facts), model(depth, width).eval()
    found = []
    for _ in range(2):
        loss = one.loss(ways, *asked(facts), 0.0)
        found.append((loss, *torch.autograd.grad(loss, list(one.parameters()))))
        monkeypatch.setattr(walker, "library", lambda: None)
    for ours, plain in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("unreached", [0, 3], ids=["all are reached", "some are not"])
@pytest.mark.parametrize("seed", range(6))
def test_scores_hundreds_apart_lose_no_gradient(monkeypatch, unreached, seed):
    """The query's other answers lie far above all its rivals, or everything that is reached far below 0."""
    star = np.array([[0, 0, 1], [0, 0, 2], [0, 2, 1], [0, 1, 3], [0, 1, 4]])
    ways, one = Ways(Facts(star, 5 + unreached, RELATIONS), CPU), model(depth=1).eval()
    with torch.no_grad():
        one.ask.copy_(200 * torch.randn(one.ask.shape, generator=torch.Generator().manual_seed(seed)))
    question = torch.tensor([0, 0]), torch.tensor([0, 0]), torch.tensor([1, 2])
    found = []
    for _ in range(2):
        loss = one.loss(ways, *question, 0.0)
        found.append((loss.detach(), *torch.autograd.grad(loss, list(one.parameters()))))
        monkeypatch.setattr(walker, "library", lambda: None)
    scale = max(float(part.abs().max()) for part in found[1])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5 * scale)


@needs_kernel
def test_scores_are_those_of_plain_torch(monkeypatch):
    facts = triples()
    ways, one, (known, relation, _) = ways_of(facts), model(), asked(facts)
    with torch.no_grad():
        ours = one.scores(ways, known, relation)
        monkeypatch.setattr(walker, "library", lambda: None)
        for block in (walker.BLOCK, 1):  # all queries at once, one after the other
            monkeypatch.setattr(walker, "BLOCK", block)
            torch.testing.assert_close(ours, one.scores(ways, known, relation), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
def test_a_fact_that_is_asked_for_leaves_no_trace(monkeypatch, kernel):
    """The loss is that of a graph without the fact, so neither its edge nor the count of edges tells the answer."""
    if not kernel:
        monkeypatch.setattr(walker, "library", lambda: None)
    facts, one = triples(), model().eval()
    ways = ways_of(facts)
    for place, (head, relation, tail) in enumerate(facts.tolist()):
        question = [torch.tensor([part]) for part in (head, relation, tail)]
        loss = one.loss(ways, *question, 0.0)
        without = ways_of(np.delete(facts, place, axis=0))
        with torch.no_grad():
            score = one.scores(without, *question[:2])[0]
        others = [t for h, r, t in facts.tolist() if (h, r) == (head, relation) and t != tail]
        score[others] = -torch.inf
        torch.testing.assert_close(loss, score.logsumexp(0) - score[tail], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
def test_what_no_walk_of_so_many_steps_reaches_scores_zero(monkeypatch, kernel):
    if not kernel:
        monkeypatch.setattr(walker, "library", lambda: None)
    chain = np.stack([np.arange(9), np.zeros(9, dtype=np.int64), np.arange(1, 10)], 1)
    with torch.no_grad():
        score = model(depth=3).scores(ways_of(chain), torch.tensor([2, 39]), torch.tensor([0, 1]))
    assert score[0].nonzero().squeeze(1).tolist() == [0, 1, 2, 3, 4, 5]
    assert score[1].nonzero().squeeze(1).tolist() == [39]


@needs_kernel
def test_threads_do_not_change_a_bit():
    facts = triples()
    ways, one, threads = ways_of(facts), model().eval(), torch.get_num_threads()
    found = []
    try:
        for number in (1, 3):
            torch.set_num_threads(number)
            loss = one.loss(ways, *asked(facts), 0.0)
            found.append((loss, *torch.autograd.grad(loss, list(one.parameters()))))
    finally:
        torch.set_num_threads(threads)
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)
