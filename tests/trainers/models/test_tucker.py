"""TuckER's contraction and what KvsAll training shares: kernels against plain torch, the law of the masks, the loss."""

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainers import room
from trainers.kernels import attention, bce, dropout, library, tucker
from trainers.parts.tucker import TuckERScorer
from trainers.training.kvsall import Queries, link_loss

needs_kernels = pytest.mark.skipif(library() is None, reason="the C kernels are not built")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def contracted(x, relation, core, index, p: float, seed: int) -> torch.Tensor:
    return tucker._Contract.apply(x, relation, core, index, p, seed, True)


def mask_of(seed: int, queries: int, width: int, p: float) -> torch.Tensor:
    """(B, D, D) scaled mask, seen through the contraction itself: row i of it is what the i-th unit vector gives."""
    ones, one = torch.ones(1, width, width), torch.ones(1, 1)
    index = torch.zeros(queries, dtype=torch.int64)
    rows = [
        contracted(F.one_hot(torch.full((queries,), i), width).float(), one, ones, index, p, seed) for i in range(width)
    ]
    return torch.stack(rows, dim=1)


@needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("width", [8, 13])
@pytest.mark.parametrize("shared", [True, False], ids=["by relation", "a relation each"])
def test_kernel_agrees_with_plain_autograd_under_the_same_mask(monkeypatch, p, width, shared):
    monkeypatch.setattr(tucker, "BLOCK", 3 * 5 * width)  # several blocks of rows, the last one smaller
    queries, relations = 23, 5
    index = torch.randint(relations, (queries,), generator=torch.Generator().manual_seed(1)) if shared else None
    rows = relations if shared else queries
    inputs = [draw(queries, width), draw(rows, 6, seed=1), draw(6, width, width, seed=2)]
    inputs[0][3] = 0  # rows that the kernel may pass over
    ours = [one.clone().requires_grad_() for one in inputs]
    theirs = [one.double().requires_grad_() for one in inputs]
    mask = mask_of(7, queries, width, p).double()
    q = contracted(*ours, index, p, 7)
    matrix = (theirs[1] @ theirs[2].flatten(1)).unflatten(1, (width, width))
    expected = torch.einsum("bi,bij,bij->bj", theirs[0], mask, matrix if index is None else matrix[index])
    torch.testing.assert_close(q.double(), expected, rtol=1e-5, atol=1e-5)
    slope = draw(queries, width, seed=3)
    q.backward(slope)
    expected.backward(slope.double())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


@needs_kernels
def test_matrices_made_again_give_the_same_gradients(monkeypatch):
    def gradients():
        x, r, w = (one.requires_grad_() for one in (draw(9, 8), draw(9, 4, seed=1), draw(4, 8, 8, seed=2)))
        contracted(x, r, w, None, 0.4, 3).square().sum().backward()
        return x.grad, r.grad, w.grad

    kept = gradients()
    monkeypatch.setattr(room, "LIMIT", 0)
    assert all(torch.equal(one, other) for one, other in zip(kept, gradients(), strict=True))
    monkeypatch.setattr(room, "LIMIT", 9 * 8 * 8 * 4 // 2)  # some of the blocks
    monkeypatch.setattr(tucker, "BLOCK", 9 * 8 * 2)
    some = gradients()
    monkeypatch.setattr(room, "LIMIT", 0)
    assert all(torch.equal(one, other) for one, other in zip(some, gradients(), strict=True))


@needs_kernels
@pytest.mark.parametrize("p", [0.0, 0.4])
def test_rows_that_meet_a_dropped_number_are_left_out_and_nothing_else_changes(monkeypatch, p):
    monkeypatch.setattr(tucker, "BLOCK", 9 * 8 * 3)
    kept = draw(9, 8, seed=5) > -0.5
    kept[:, 4] = False  # a row that no query needs

    def found(given):
        x, r, w = (one.requires_grad_() for one in (draw(9, 8), draw(9, 4, seed=1), draw(4, 8, 8, seed=2)))
        q = tucker._Contract.apply(x * kept, r, w, None, p, 3, True, given)
        q.square().sum().backward()
        return q, x.grad, r.grad, w.grad

    for one, other in zip(found(kept), found(None), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    made = []
    matrix = tucker._Part.matrix
    monkeypatch.setattr(tucker._Part, "matrix", lambda part: made.append(part.rows) or matrix(part))
    with torch.no_grad():
        found_rows = tucker.contract(draw(9, 8) * kept, draw(9, 4), draw(4, 8, 8), None, 0.0, kept)
    assert len(found_rows) == 9
    assert sum(made) == int(kept.sum())


@needs_kernels
def test_mask_keeps_the_law_of_dropout():
    p, queries, width = 0.4, 60, 64
    kept = mask_of(11, queries, width, p) > 0
    assert torch.unique(mask_of(11, 2, width, p)).tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-4)
    n = kept.numel()
    assert abs(float(kept.double().mean()) - (1 - p)) < 5 * (p * (1 - p) / n) ** 0.5
    centred = kept.double() - (1 - p)
    neighbours = {
        "query": centred[1:] * centred[:-1],
        "row": centred[:, 1:] * centred[:, :-1],
        "column": centred[:, :, 1:] * centred[:, :, :-1],
        "halves of one draw": centred[:, :, : width // 2] * centred[:, :, width // 2 :],
    }
    for name, product in neighbours.items():
        assert abs(float(product.mean())) < 5 * p * (1 - p) / product.numel() ** 0.5, name
    per_query = kept.sum((1, 2)).double()  # binomial: its variance is that of independent draws
    cells = width * width
    assert 0.5 < float(per_query.var()) / (cells * p * (1 - p)) < 1.7
    assert not torch.equal(kept, mask_of(12, queries, width, p) > 0)


@needs_kernels
def test_mask_depends_on_the_query_alone_not_on_relation_or_threads():
    x, r, w = draw(40, 16), draw(4, 5, seed=1), draw(5, 16, 16, seed=2)
    index = torch.arange(40) % 4
    threads = torch.get_num_threads()
    together = contracted(x, r, w, index, 0.4, 5)
    try:
        torch.set_num_threads(1)
        alone = contracted(x, r[index], w, None, 0.4, 5)
        again = contracted(x, r, w, index, 0.4, 5)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(together, again)


def test_reseeding_the_global_generator_repeats_a_training_pass():
    scorer = TuckERScorer(8, 6)
    x, r, index = draw(10, 8), draw(3, 6, seed=1), torch.arange(10) % 3

    def once(seed):
        torch.manual_seed(seed)
        return scorer(x, r, index)

    assert torch.equal(once(1), once(1))
    assert not torch.equal(once(1), once(2))


def test_plain_path_has_the_same_law(plain_torch):
    x, r, w = torch.ones(4000, 8), torch.ones(1, 1), torch.ones(1, 8, 8)
    q = tucker.contract(x, r, w, torch.zeros(4000, dtype=torch.int64), 0.4)
    assert float(q.mean()) == pytest.approx(8, rel=0.02)
    assert float(q.var()) == pytest.approx(8 * 0.4 / 0.6, rel=0.1)


def test_asking_in_evaluation_is_the_forward_pass_without_dropout():
    scorer = TuckERScorer(8, 6, generator=torch.Generator().manual_seed(0)).eval()
    table, relation, x = draw(9, 6), torch.tensor([3, 8, 3, 0, 8, 3]), draw(6, 8, seed=1)
    torch.testing.assert_close(scorer.ask(x, table, relation), scorer(x, table[relation]), rtol=1e-5, atol=1e-6)


@needs_kernels
@pytest.mark.parametrize("n", [1, 2, 1023, 5001])
def test_dropout_keeps_its_law_and_drops_the_same_backwards(n):
    torch.manual_seed(0)
    x = torch.ones(n, requires_grad=True)
    y = dropout.dropout(x, 0.2)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())
    assert set(y.unique().tolist()) <= {0.0, float(np.float32(dropout.threshold(0.2)[1]))}
    if n > 5000:
        assert abs(float((y == 0).double().mean()) - 0.2) < 5 * (0.16 / n) ** 0.5
    assert dropout.dropout(x, 0.0) is x


@needs_kernels
def test_dropout_before_a_layer_drops_what_the_two_steps_drop():
    layer, x = torch.nn.Linear(12, 5), draw(30, 12).requires_grad_()
    other = x.detach().clone().requires_grad_()
    torch.manual_seed(4)
    y = dropout.dropout_linear(x, layer, 0.3)
    y.square().sum().backward()
    gradients = [layer.weight.grad.clone(), layer.bias.grad.clone()]
    layer.zero_grad()
    torch.manual_seed(4)
    two = layer(dropout.dropout(other, 0.3))
    two.square().sum().backward()
    torch.testing.assert_close(y, two)
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(gradients, [layer.weight.grad, layer.bias.grad])
    assert float((two - layer(other)).detach().abs().max()) > 0.01


@needs_kernels
@pytest.mark.parametrize("masked", [False, True])
def test_attention_kernel_agrees_with_plain_torch(monkeypatch, masked):
    present = draw(300, 3, seed=9) > 0 if masked else None
    if masked:
        present[0] = False

    def run():
        parts = [draw(300, 7, seed=i).requires_grad_() for i in range(3)]
        weight = draw(7, seed=5).requires_grad_()
        out, weights = attention.attend(parts, weight, present)
        (out * draw(300, 7, seed=6)).sum().backward()
        return [out, weights, weight.grad, *[part.grad for part in parts]]

    ours = run()
    monkeypatch.setenv("TESSERA_KERNELS", "off")
    library.cache_clear()
    theirs = run()
    library.cache_clear()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, torch.nan_to_num(other), rtol=1e-4, atol=1e-5)
    if masked:
        assert torch.equal(ours[0][0], torch.zeros(7))


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_cost_and_slope_of_extreme_and_ordinary_logits(monkeypatch, kernels):
    monkeypatch.setenv("TESSERA_KERNELS", kernels)
    library.cache_clear()
    x = torch.cat([draw(3, 400) * 5, torch.tensor([[0.0, -0.0, 90, -90, 1e-7, 500, -500, 17]] * 3)], dim=1)
    row, column = torch.tensor([1.0, 0.0, 0.5]), (draw(408, seed=2) > 0).float()
    exact = x.double().requires_grad_()
    cost = (F.softplus(exact) - 0.01 * exact) * row[:, None] * column
    cost.sum().backward()
    slope = x.clone()
    found = bce.cost_and_slope_(slope, row, column, 0.01)
    library.cache_clear()
    assert float(found) == pytest.approx(float(cost.detach().sum()), rel=1e-6)
    torch.testing.assert_close(slope.double(), exact.grad, rtol=1e-5, atol=1e-7)
    broken = torch.full((3, 408), float("nan"))
    assert torch.isnan(bce.cost_and_slope_(broken, row, column, 0.01))


@pytest.mark.parametrize("kernels", ["on", "off"])
def test_sum_of_sigmoids_in_a_slice(monkeypatch, kernels):
    monkeypatch.setenv("TESSERA_KERNELS", kernels)
    library.cache_clear()
    total, logits = torch.ones(4, 20), draw(4, 8) * 10
    bce.add_sigmoid_(total[:, 5:13], logits.clone(), 0.25)
    library.cache_clear()
    expected = torch.ones(4, 20)
    expected[:, 5:13] += 0.25 * torch.sigmoid(logits)
    torch.testing.assert_close(total, expected)


def dense_loss(query, candidates, row, answer, entities):
    labels = torch.zeros(len(query), len(candidates), dtype=torch.float64)
    labels[row, answer] = 1
    return F.binary_cross_entropy_with_logits(query @ candidates.T, 0.9 * labels + 1 / entities)


def problem(queries=6, entities=11, width=4):
    row, answer = (draw(queries, entities, seed=8) > 0.8).nonzero(as_tuple=True)
    return draw(queries, width), draw(entities, width, seed=1), row, answer


def test_link_loss_is_the_cross_entropy_of_a_dense_label_matrix(monkeypatch):
    monkeypatch.setattr("trainers.training.kvsall.BLOCK", 6 * 3)  # blocks of three candidates
    query, candidates, row, answer = problem()
    ours = [query.clone().requires_grad_(), candidates.clone().requires_grad_()]
    theirs = [query.double().requires_grad_(), candidates.double().requires_grad_()]
    loss = link_loss(*ours, row, answer, entities=11)
    expected = dense_loss(*theirs, row, answer, 11)
    (3 * loss).backward()
    (3 * expected).backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-5, atol=1e-8)


def test_sampled_candidates_estimate_the_loss_without_bias():
    query, candidates, row, answer = problem(entities=7)
    whole = float(link_loss(query, candidates, row, answer, entities=7))
    answers, at = torch.unique(answer, return_inverse=True)
    estimates = [
        float(
            link_loss(
                query, torch.cat([candidates[list(some)], candidates[answers]]), row, 3 + at, entities=7, sampled=3
            )
        )
        for some in itertools.combinations(range(7), 3)
    ]
    assert max(estimates) - min(estimates) > 0.01
    assert float(np.mean(estimates)) == pytest.approx(whole, rel=1e-5)


def test_queries_and_candidates_left_out_do_not_count():
    query, candidates, row, answer = problem()
    rows, columns = torch.tensor([1, 1, 0, 1, 0, 1]).bool(), torch.ones(11, dtype=torch.bool)
    columns[[2, 9]] = False
    ours = link_loss(query, candidates, row, answer, entities=9, rows=rows, columns=columns)
    new_row, new_column = rows.cumsum(0) - 1, columns.cumsum(0) - 1
    kept = rows[row] & columns[answer]
    expected = dense_loss(query[rows].double(), candidates[columns].double(),
                          new_row[row[kept]], new_column[answer[kept]], 9)  # fmt: skip
    assert float(ours) == pytest.approx(float(expected), rel=1e-6)


def test_an_epoch_asks_every_query_once_with_all_its_answers():
    generator = torch.Generator().manual_seed(0)
    triples = torch.stack([torch.randint(n, (60,), generator=generator) for n in (9, 4, 9)], dim=1)
    triples = torch.cat([triples, triples[:5]])  # a fact told twice is one fact
    expected: dict[tuple[int, int], set[int]] = {}
    for h, r, t in triples.tolist():
        expected.setdefault((h, r), set()).add(t)
        expected.setdefault((t, r + 4), set()).add(h)
    queries = Queries(triples, 9, 4)
    for size in (7, len(expected) - 1, 1000):
        found: dict[tuple[int, int], list[int]] = {}
        batches = list(queries.batches(size, (0, 0), torch.device("cpu")))
        assert len(batches) == queries.steps(size)
        for batch in batches:
            assert len(batch.known) > 1
            assert torch.equal(batch.distinct[batch.index], batch.relation)
            assert torch.equal(batch.answers[batch.answer_index], batch.answer)
            for b, key in enumerate(zip(batch.known.tolist(), batch.relation.tolist(), strict=True)):
                assert key not in found
                found[key] = batch.answer[batch.row == b].tolist()
        assert {key: set(answers) for key, answers in found.items()} == expected
        assert all(len(answers) == len(set(answers)) for answers in found.values())
    first, again, other = (
        [batch.known for batch in queries.batches(7, seed, torch.device("cpu"))] for seed in ((0, 1), (0, 1), (0, 2))
    )
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))
