"""MyGO: the fast path against an obvious twin, each option's effect, missing tokens, and what training rests on."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.errors import UserError
from pipeline.settings import build as checked
from trainers.kernels import ent_attention
from trainers.kernels.cross_entropy import linear_cross_entropy
from trainers.kernels.ent_attention import Segment, mix
from trainers.models.mygo import Learner, MyGO, Settings, build
from trainers.parts.contrastive import info_nce
from trainers.training.data import Data, Tokens

ENTITIES, RELATIONS, CODES = 21, 4, 17
CPU = torch.device("cpu")
STILL = {"dropout": 0.0, "structure_dropout": 0.0, "image_dropout": 0.0, "text_dropout": 0.0}
SMALL = {"dimension": 16, "hidden_dimension": 24, "heads": 2, "batch_size": 16, "image_tokens": 4, "text_tokens": 3}
SMALL |= {"contrastive_rows": 9, "decoder_layers": 2, "modalities": ("structure", "text", "image")}


def tokens(entities: list[int], draw: torch.Generator) -> Tokens:
    length = torch.randint(1, 7, (len(entities),), generator=draw)
    offsets = F.pad(length.cumsum(0), (1, 0))
    values = torch.randint(0, CODES, (int(offsets[-1]),), generator=draw)
    return Tokens(torch.tensor(entities), offsets, values, torch.arange(CODES), torch.randn(CODES, 6, generator=draw))


def graph(seed: int = 0) -> Data:
    """21 entities; 0, 1 and 2 have no picture, 2 and 3 no text."""
    draw = torch.Generator().manual_seed(seed)
    train = torch.stack([torch.randint(0, n, (60,), generator=draw) for n in (ENTITIES, RELATIONS, ENTITIES)], dim=1)
    have = {"image": list(range(3, ENTITIES)), "text": [e for e in range(ENTITIES) if e not in (2, 3)]}
    found = {which: tokens(entities, draw) for which, entities in have.items()}
    return Data("tiny", ENTITIES, RELATIONS, train, train[:0], train[:0], {}, found)


def settings(**changes) -> Settings:
    return Settings(**{**SMALL, **STILL, "scorer_dropout": (0.0, 0.0, 0.0), **changes})


def model_of(chosen: Settings, seed: int = 0) -> MyGO:
    model = build(graph(), chosen, torch.Generator().manual_seed(seed))
    with torch.no_grad():  # away from the initial zeros, so that every weight matters
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


def learner_of(chosen: Settings, seed: int = 0, precision: torch.dtype = torch.float32) -> Learner:
    learner = Learner(model_of(chosen), graph(), chosen, device=CPU, precision=precision, seed=seed)
    learner.model.train()
    return learner


def loss_and_gradients(learner: Learner, batch) -> tuple[float, dict[str, torch.Tensor]]:
    learner.model.zero_grad()
    loss = sum(learner.losses(batch).values())
    loss.backward()
    return float(loss.detach()), {name: p.grad.clone() for name, p in learner.model.named_parameters()}


# The obvious twin: PyTorch's own layers on every entity's whole sequence, with the model's weights.


def twin_sequences(model: MyGO) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (E, T, D) of the encoder, and where there is no token (E, T)."""
    parts = [model.ent_token.expand(ENTITIES, 1, -1)]
    absent = [torch.zeros(ENTITIES, 1, dtype=torch.bool)]
    if model.has_structure:
        parts.append((model.structure_norm(model.structure) + model.structure_bias).unsqueeze(1))
        absent.append(absent[0])
    for embedding in model.tokens.values():
        parts.append(embedding.norm(embedding.project(embedding.codebook[embedding.index])) + embedding.bias)
        absent.append(embedding.absent)
    return torch.cat(parts, dim=1), torch.cat(absent, dim=1)


def twin_losses(model: MyGO, batch) -> dict[str, torch.Tensor]:
    chosen = model.settings
    x, absent = twin_sequences(model)
    out = model.encoder(x, src_key_padding_mask=absent)
    first = torch.cat([out[:, 0], model.unknown[None]])
    unknown = torch.full_like(batch.known, ENTITIES)
    head = torch.where(batch.hides_tail, batch.known, unknown)
    tail = torch.where(batch.hides_tail, unknown, batch.known)
    relation = model.relation_norm(model.relation)[batch.relation]
    query = torch.stack([first[head], relation, first[tail]], dim=1) + model.position
    for layer in model.decoder:
        query = layer(query)
    asked = torch.where(batch.hides_tail[:, None], query[:, 2], query[:, 0])
    terms = {"link": F.cross_entropy(model.tucker(asked, query[:, 1]) @ first[:-1].T, batch.target)}
    if batch.contrasted is not None:
        m, places = chosen.image_tokens, 1 + model.has_structure
        sums = [out.mean(1), out[:, places : places + m].mean(1), out[:, places + m : -1].mean(1)]
        views = [first] + [torch.cat([view, model.unknown[None]]) for view in sums]
        rows = batch.contrasted
        cosine = [F.cosine_similarity(first[rows][:, None], view[rows][None], dim=-1) for view in views]
        own = torch.arange(len(rows))
        terms["contrastive"] = (
            chosen.contrastive_weight * sum(F.cross_entropy(c / chosen.temperature, own) for c in cosine) / 4
        )
    return terms


def test_the_fast_path_equals_the_twin_in_losses_and_gradients():
    learner = learner_of(settings(contrastive_weight=0.5))
    batch = next(learner.batches(0))
    loss, gradients = loss_and_gradients(learner, batch)
    learner.model.zero_grad()
    expected = sum(twin_losses(learner.model, batch).values())
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in learner.model.named_parameters():
        scale = parameter.grad.abs().max()
        assert (gradients[name] - parameter.grad).abs().max() <= 1e-4 * scale + 1e-7, name


def test_the_scorer_equals_the_twin_in_both_directions():
    model = model_of(settings()).eval()
    known, relation = torch.arange(ENTITIES), torch.arange(ENTITIES) % RELATIONS
    first = model.encoder(twin_sequences(model)[0], src_key_padding_mask=twin_sequences(model)[1])[:, 0]
    for side, places in (("tail", (0, 2)), ("head", (2, 0))):
        query = torch.zeros(ENTITIES, 3, model.width)
        query[:, places[0]], query[:, places[1]] = first[known], model.unknown
        query[:, 1] = model.relation_norm(model.relation)[relation]
        query = query + model.position
        for layer in model.decoder:
            query = layer(query)
        expected = model.tucker(query[:, places[1]], query[:, 1]) @ first.T
        torch.testing.assert_close(model.scorer()(known, relation, side), expected, rtol=1e-4, atol=1e-5)


def test_scoring_leaves_the_model_in_training_and_unchanged():
    model = model_of(settings(structure_dropout=0.5)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score = model.scorer()
    known = torch.arange(4)
    assert torch.equal(score(known, known % RELATIONS, "tail"), score(known, known % RELATIONS, "tail"))
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# The kernels


def attention_problem(p: float) -> tuple[list[Segment], torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    n, width, heads = 150, 70, 3
    index = torch.randint(0, 11, (n, 5), generator=draw)
    absent = torch.rand(n, 5, generator=draw) < 0.3
    absent[:4] = True
    structure, table = torch.randn(n, width, generator=draw), torch.randn(11, width, generator=draw)
    segments = [
        Segment(structure.requires_grad_(), None, None, p),
        Segment(table.requires_grad_(), index, absent, p / 2),
    ]
    direction = (0.3 * torch.randn(heads, width, generator=draw)).requires_grad_()
    return segments, direction, torch.randn(heads, 3, generator=draw).requires_grad_()


def test_the_kernel_gives_the_same_numbers_as_plain_torch(monkeypatch):
    results = []
    for plain in (False, True):
        segments, direction, offset = attention_problem(0.0)
        if plain:
            monkeypatch.setattr(ent_attention, "library", lambda: None)
        mixed, share = mix(segments, direction, offset, 0.0)
        (mixed.sin().sum() + share.square().sum()).backward()
        leaves = (direction, offset, *(segment.table for segment in segments))
        results.append([mixed, share, *(leaf.grad for leaf in leaves)])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_the_kernel_gradient_belongs_to_the_masks_that_were_drawn():
    """With one seed the dropped function is smooth: its slope along any direction is what the gradient says."""
    segments, direction, offset = attention_problem(0.4)
    leaves = [direction, offset, *(segment.table for segment in segments)]

    def value() -> torch.Tensor:
        torch.manual_seed(5)
        mixed, share = mix(segments, direction, offset, 0.3)
        return mixed.double().sin().sum() + share.double().square().sum()

    value().backward()
    draw = torch.Generator().manual_seed(0)
    for leaf in leaves:
        along = torch.randn(leaf.shape, generator=draw)
        step = 1e-3 / along.norm() * leaf.detach().norm()
        with torch.no_grad():
            leaf += step * along
            above = value()
            leaf -= 2 * step * along
            slope = (above - value()) / (2 * step)
            leaf += step * along
        assert float(slope) == pytest.approx(float((leaf.grad * along).sum()), rel=2e-2)


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_the_kernel_drops_with_the_probability_asked_and_keeps_the_mean(p):
    count, width = 4000, 64
    ones = torch.ones(count, width)
    blind = torch.zeros(1, width), torch.tensor([[-40.0, 0.0]])  # all weight on the one row
    mixed, _ = mix([Segment(ones, None, None, p)], *blind, 0.0)
    assert float((mixed == 0).float().mean()) == pytest.approx(p, abs=0.005)
    assert float(mixed.mean()) == pytest.approx(1, abs=0.01)
    assert torch.unique(mixed).tolist() == pytest.approx([0, 1 / (1 - p)], rel=1e-5)
    per_column = (mixed == 0).float().mean((0, 1))
    assert float((per_column - p).abs().max()) < 5 * math.sqrt(p * (1 - p) / count)
    again, _ = mix([Segment(ones, None, None, p)], *blind, 0.0)
    assert not torch.equal(mixed, again), "each call draws its own masks"


def test_threads_change_nothing():
    found, usual = [], torch.get_num_threads()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        segments, direction, offset = attention_problem(0.4)
        mixed, share = mix(segments, direction, offset, 0.3)
        (mixed.sum() + share.square().sum()).backward()
        found.append([mixed, share, direction.grad, offset.grad, *(segment.table.grad for segment in segments)])
    torch.set_num_threads(usual)
    assert all(torch.equal(one, two) for one, two in zip(*found, strict=True))


def test_cross_entropy_over_all_candidates_equals_torch():
    draw = torch.Generator().manual_seed(0)
    query = (3 * torch.randn(40, 8, generator=draw)).requires_grad_()
    table = torch.randn(700, 8, generator=draw).requires_grad_()
    target = torch.randint(0, 700, (40,), generator=draw)
    ours = linear_cross_entropy(query, table, target)
    gradients = torch.autograd.grad(2 * ours, (query, table))
    expected = F.cross_entropy(query @ table.T, target)
    torch.testing.assert_close(ours, expected)
    for one, two in zip(gradients, torch.autograd.grad(2 * expected, (query, table)), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-7)


def test_cross_entropy_of_a_broken_score_is_broken():
    table = torch.randn(50, 4)
    table[7, 0] = math.nan
    assert torch.isnan(linear_cross_entropy(torch.randn(3, 4), table, torch.tensor([0, 1, 2])))


# Options


@pytest.mark.parametrize(
    "change",
    [
        {"contrastive_text_view": "all_tokens"},
        {"contrastive_means": "unmasked"},
        {"temperature": 0.2},
        {"contrastive_weight": 0.2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_option_of_the_contrastive_loss_changes_it_alone(change):
    plain, changed = (
        learner_of(settings(contrastive_weight=0.5)),
        learner_of(settings(**{"contrastive_weight": 0.5, **change})),
    )
    batch = next(plain.batches(0))
    before, after = plain.losses(batch), changed.losses(batch)
    assert float(before["link"]) == float(after["link"])
    assert abs(float(before["contrastive"]) - float(after["contrastive"])) > 1e-4


def test_unmasked_means_do_not_see_what_stands_in_empty_places():
    for means, moves in (("unmasked", False), ("reference", True)):
        found = []
        for filler in (0.0, 7.0):
            learner = learner_of(
                settings(contrastive_weight=0.5, contrastive_means=means, contrastive_text_view="all_tokens")
            )
            for embedding in learner.model.tokens.values():
                embedding.codebook[0] = filler  # row 0 fills the empty places, and nothing else
            found.append(float(learner.losses(next(learner.batches(0)))["contrastive"]))
        assert (abs(found[0] - found[1]) > 1e-5) == moves


def test_an_entity_without_a_modality_is_no_row_of_its_unmasked_view():
    anchors, views = torch.randn(6, 8), torch.randn(6, 8)
    present = torch.tensor([True, True, False, True, False, True])
    expected = info_nce(anchors[present], views[present], torch.ones(4, dtype=torch.bool), 0.5)
    torch.testing.assert_close(info_nce(anchors, views, present, 0.5), expected)


def test_without_mu_there_is_no_contrastive_pass():
    learner = learner_of(settings(contrastive_weight=0.0))
    batch = next(learner.batches(0))
    assert batch.contrasted is None
    assert set(learner.step(batch)) == {"link"}


def test_sampled_candidates_estimate_the_full_loss_and_all_of_them_are_exact():
    full = learner_of(settings(contrastive_weight=0.0))
    batch = next(full.batches(0))
    expected, gradients = loss_and_gradients(full, batch)
    every = learner_of(settings(contrastive_weight=0.0, candidates=ENTITIES))
    exact, same = loss_and_gradients(every, next(every.batches(0)))
    assert exact == pytest.approx(expected, rel=1e-5)
    for name, gradient in gradients.items():
        torch.testing.assert_close(same[name], gradient, rtol=1e-3, atol=1e-5)
    few = learner_of(settings(contrastive_weight=0.0, candidates=8))
    query, first = torch.randn(400, 16, generator=torch.Generator().manual_seed(0)), torch.randn(ENTITIES, 16)
    odds = []  # of the partition function without the target: the estimate is unbiased in it
    for draw in range(400):
        negatives = torch.randperm(ENTITIES, generator=torch.Generator().manual_seed(draw))[:8]
        one = dataclasses.replace(batch, target=torch.tensor([5]), negatives=negatives)
        odds.append(few.link(0.3 * query[:1], first, one).exp() - 1)
    truth = linear_cross_entropy(0.3 * query[:1], first, torch.tensor([5])).exp() - 1
    assert float(torch.stack(odds).mean()) == pytest.approx(float(truth), rel=0.1)


def test_sampled_candidates_with_the_contrastive_loss_encode_what_they_need():
    learner = learner_of(settings(contrastive_weight=0.5, candidates=4, contrastive_rows=5, batch_size=6))
    batch = next(learner.batches(0))
    assert len(batch.entities) < ENTITIES
    assert batch.entities[batch.target].tolist() == next(learner_of(settings(batch_size=6)).batches(0)).target.tolist()
    assert all(torch.isfinite(term) for term in learner.step(batch).values())


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"heads": 3}, "heads"),
        ({"modalities": ("structure", "sound")}, "modalities"),
        ({"modalities": ()}, "modalities"),
        ({"text_tokens": 1}, "contrastive_text_view"),
        ({"candidates": 0}, "candidates"),
        ({"image_dropout": 1.0}, "image_dropout"),
        ({"scorer_dropout": (0.1, -0.1, 0.0)}, "scorer_dropout"),
        ({"image_tokens": 0}, "image_tokens"),
    ],
    ids=lambda value: str(value),
)
def test_settings_that_contradict_are_refused_in_one_sentence(change, word):
    with pytest.raises(UserError, match=word) as caught:
        checked(Settings, {**SMALL, **STILL, **change})
    assert "\n" not in str(caught.value)


# Missing tokens


def test_an_entity_without_tokens_attends_to_the_rest_only():
    attention = model_of(settings()).attention()
    image, text = slice(2, 6), slice(6, 9)
    torch.testing.assert_close(attention.sum(1), torch.ones(ENTITIES))
    assert attention.shape == (ENTITIES, 2 + 4 + 3)
    assert (attention[:3, image] == 0).all()
    assert (attention[2:4, text] == 0).all()
    assert (attention[4:, :2] > 0).all()
    assert (attention[4:, image].sum(1) > 0).all()


def test_attention_is_that_of_the_encoder():
    model = model_of(settings()).eval()
    x, absent = twin_sequences(model)
    _, expected = model.encoder.self_attn(x, x, x, key_padding_mask=absent)
    torch.testing.assert_close(model.attention(), expected[:, 0], rtol=1e-4, atol=1e-6)


def test_what_fills_an_empty_place_reaches_no_embedding():
    model = model_of(settings()).eval()
    with torch.no_grad():
        before = model.embed(model.token_vectors())
        for embedding in model.tokens.values():
            embedding.codebook[0] = 9.0
        assert torch.equal(model.embed(model.token_vectors()), before)


# Training


def test_batches_are_a_function_of_seed_and_epoch():
    learner, other = learner_of(settings()), learner_of(settings())
    for one, two in zip(learner.batches(3), other.batches(3), strict=True):
        assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("known", "target", "contrasted"))
    assert not torch.equal(next(learner.batches(3)).known, next(learner.batches(4)).known)
    assert not torch.equal(next(learner.batches(3)).known, next(learner_of(settings(), seed=1).batches(3)).known)


def test_an_epoch_asks_each_triple_once_on_one_side_at_even_odds():
    learner = learner_of(settings())
    seen, tails = [], 0
    for epoch in range(20):
        asked = []
        for batch in learner.batches(epoch):
            head = torch.where(batch.hides_tail, batch.known, batch.target)
            tail = torch.where(batch.hides_tail, batch.target, batch.known)
            asked += torch.stack([head, batch.relation, tail], dim=1).tolist()
            tails += int(batch.hides_tail.sum())
        seen.append(sorted(asked))
    assert all(one == sorted(learner.triples.tolist()) for one in seen)
    assert tails / (20 * len(learner.triples)) == pytest.approx(0.5, abs=0.05)


def test_a_last_batch_of_one_joins_the_one_before():
    learner = learner_of(settings(batch_size=59))
    assert [len(batch.known) for batch in learner.batches(0)] == [60]
    assert learner.steps_per_epoch == 1


def test_the_same_seed_trains_the_same_weights_bit_for_bit():
    found = []
    for seed in (0, 0, 1):
        learner = learner_of(settings(structure_dropout=0.3, image_dropout=0.2, dropout=0.1, contrastive_weight=0.1))
        torch.manual_seed(seed)
        for batch in learner.batches(0):
            learner.step(batch)
        found.append(learner.model.state_dict())
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert not torch.equal(found[0]["structure"], found[2]["structure"])


def test_gradients_are_clipped_and_the_rate_restarts():
    learner = learner_of(settings(learning_rate=0.5, restart_epochs=2))
    learner.step(next(learner.batches(0)))
    total = math.sqrt(sum(float(p.grad.square().sum()) for p in learner.model.parameters()))
    assert total == pytest.approx(0.1, rel=1e-3)
    rates = []
    for _ in range(7):
        rates.append(learner.optimizers["model"].param_groups[0]["lr"])
        learner.schedulers["model"].step()
    assert rates[:4] == pytest.approx([0.5, 0.25, 0.5, 0.5 * (1 + math.cos(math.pi / 4)) / 2])
    assert rates[6] == 0.5


def test_bfloat16_comes_close_to_float32():
    exact, coarse = (
        learner_of(settings(contrastive_weight=0.1)),
        learner_of(settings(contrastive_weight=0.1), precision=torch.bfloat16),
    )
    batch = next(exact.batches(0))
    for name, value in exact.losses(batch).items():
        assert float(coarse.losses(batch)[name]) == pytest.approx(float(value), rel=0.05)


def test_a_checkpoint_brings_its_own_codebook():
    model = model_of(settings())
    bare = Tokens(
        torch.arange(0), torch.zeros(1, dtype=torch.int64), torch.arange(0), torch.arange(5), torch.zeros(5, 6)
    )
    blank = dataclasses.replace(graph(), tokens={"image": bare, "text": bare})
    other = build(blank, settings(), torch.Generator().manual_seed(9))
    other.load_state_dict(model.state_dict(), strict=True)
    known = torch.arange(6)
    assert torch.equal(model.scorer()(known, known % 4, "head"), other.scorer()(known, known % 4, "head"))


def test_initial_weights_follow_the_reference_rules():
    model = build(graph(), settings(), torch.Generator().manual_seed(0))
    table = nn.init.xavier_uniform_(torch.empty(ENTITIES, 1, 16)).abs().max()
    assert float(model.structure.abs().max()) == pytest.approx(float(table), rel=0.1)
    assert float(model.ent_token.abs().max()) == pytest.approx(math.sqrt(6 / 32), rel=0.2)
    assert (model.encoder.self_attn.in_proj_bias == 0).all()
    state = torch.get_rng_state()
    build(graph(), settings(), torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state()), "building draws from its own generator only"


def test_a_view_that_no_row_has_adds_nothing():
    anchors = torch.randn(5, 8, requires_grad=True)
    loss = info_nce(anchors, torch.randn(5, 8), torch.zeros(5, dtype=torch.bool), 0.5)
    loss.backward()
    assert float(loss.detach()) == 0
    assert (anchors.grad == 0).all()
