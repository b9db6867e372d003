"""Graphs beyond memory: features stay on disk, a step touches its batch's rows only, a run loads with one call."""

import shutil

import numpy as np
import pytest
import torch

from benchmarks import synthetic
from benchmarks.scale import mrr
from pipeline import tables
from pipeline.errors import UserError
from trainers.models import adamf_mat
from trainers.training import data, runs
from trainers.training.checkpoint import load_tensors
from trainers.training.memmap import open_table
from trainers.training.sampling import bernoulli
from trainers.training.train import Schedule, train

ENTITIES, WIDTH = 300, 24
LARGE = {"feature_table": "frozen", "optimizer": "lazy_adam", "negative_pool": 16}
SETTINGS = adamf_mat.Settings(epochs=2, batch_size=256, negatives=4, dimension=8, learning_rate=0.01, **LARGE)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graph") / "synthetic"
    synthetic.write(folder, ENTITIES, width=WIDTH)
    return folder


@pytest.fixture
def own(graph, tmp_path):
    return shutil.copytree(graph, tmp_path / "data" / "synthetic")


def trained(folder, settings=SETTINGS):
    """Train in <project>/runs, where `folder` is <project>/data/<graph>."""
    project = folder.parent.parent
    run = project / "runs" / folder.name / "adamf_mat"
    train(
        "adamf_mat",
        settings,
        Schedule(device="cpu", precision="float32", checkpoint_every=1),
        graph=folder / "graph",
        encoded=folder / "encoded",
        run=run,
        work=project / "work",
        seed=0,
    )
    return run


def scores(run):
    known, relation = torch.arange(5), torch.arange(5)
    return runs.load_run(run).score(known, relation, "tail")


def test_the_planted_structure_holds():
    generator = np.random.default_rng(0)
    hidden = synthetic.plant(2000, generator)
    head, relation, tail = synthetic.draw_triples(hidden, generator).T
    there = (hidden.place[head] + hidden.shift[relation]) % hidden.side
    assert (hidden.place[tail] == there).all()
    assert 9 * 2000 < len(head) < 10 * 2000


def test_mapped_features_are_the_tables(graph, tmp_path):
    plain = data.read_features(graph / "encoded/text/features.parquet", ENTITIES)
    memmap = data.read_features(graph / "encoded/text/features.parquet", ENTITIES, tmp_path)
    assert torch.equal(memmap.entity, plain.entity)
    assert torch.equal(memmap.matrix, plain.matrix)
    torch.testing.assert_close(memmap.mean(), plain.matrix.mean(0), rtol=1e-5, atol=1e-6)


def test_rows_are_put_in_ascending_order_across_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.training.memmap.ROWS", 3)
    ids = np.array([7, 2, 9, 0, 4, 1, 8], dtype=np.int32)
    rows = np.repeat(ids[:, None], 2, axis=1).astype(np.float32)
    columns = {"entity_id": ids, "embedding": rows, "count": np.ones_like(ids)}
    tables.write(tmp_path / "features.parquet", "features", columns, {})
    entity, matrix, memmap = open_table(tmp_path / "features.parquet", tmp_path / "raw")
    assert entity.tolist() == sorted(ids.tolist())
    assert matrix[:, 1].tolist() == sorted(ids.tolist())
    assert memmap.mean.tolist() == pytest.approx([rows[:, 0].mean()] * 2)


def test_a_table_with_nan_is_refused_and_leaves_nothing(tmp_path):
    ids = np.arange(3, dtype=np.int32)
    rows = np.ones((3, 4), dtype=np.float32)
    rows[1, 2] = np.nan
    tables.write(tmp_path / "features.parquet", "features", {"entity_id": ids, "embedding": rows, "count": ids}, {})
    with pytest.raises(UserError, match="entity 1"):
        open_table(tmp_path / "features.parquet", tmp_path / "raw")
    assert list((tmp_path / "raw").iterdir()) == []


def test_a_table_is_unpacked_once_and_never_written_to(graph, tmp_path):
    table = graph / "encoded/image/features.parquet"
    _, first, _ = open_table(table, tmp_path)
    raw = next(tmp_path.iterdir()) / "matrix.npy"
    before = raw.stat().st_mtime_ns, raw.read_bytes()
    first.fill_(1.0)
    _, second, _ = open_table(table, tmp_path)
    assert (raw.stat().st_mtime_ns, raw.read_bytes()) == before
    assert not torch.equal(first, second)


def test_a_step_reads_and_moves_its_own_rows_only(graph, tmp_path):
    given = data.load(graph / "graph", graph / "encoded", name="synthetic", features=["image", "text"], memmap=tmp_path)
    model = adamf_mat.build(given, SETTINGS, torch.Generator().manual_seed(0))
    tiny = adamf_mat.Settings(**{**vars(SETTINGS), "batch_size": 8})
    learner = adamf_mat.Learner(model, given, tiny, device=torch.device("cpu"), precision=torch.float32, seed=0)
    batch = next(iter(learner.batches(0)))
    mine = torch.zeros(ENTITIES, dtype=torch.bool)
    mine[torch.cat([batch.positive[:, 0], batch.positive[:, 2], batch.negatives.entity.flatten()])] = True
    assert mine.sum() < ENTITIES / 2
    for one in given.features.values():  # whoever reads another row gets a NaN into the loss
        one.matrix[1:][~mine[one.entity[1:]]] = torch.nan  # row 0 is also gathered for those that have none
    before = model.entity.detach().clone()
    torch.manual_seed(3)
    terms = learner.step(batch)
    assert all(torch.isfinite(term) for term in terms.values())
    assert all(torch.isfinite(value).all() for value in model.parameters())
    moved = (model.entity.detach() != before).any(dim=1)
    assert torch.equal(moved, mine)
    moments = learner.optimizers["rows"].state[model.entity]["exp_avg"]
    assert not moments[~mine].any()
    for name, one in given.features.items():
        assert model.modality[name].table.data_ptr() == one.matrix.data_ptr()  # not copied


def test_a_run_with_frozen_features_holds_none_and_loads_with_one_call(own):
    run = trained(own)
    assert not [name for name in load_tensors(run / "weights.safetensors") if name.endswith(".table")]
    found = scores(run)
    assert torch.isfinite(found).all()
    shutil.rmtree(own.parent.parent / "work")  # the raw copies: made again from the Parquet table
    assert torch.equal(scores(run), found)


def test_frozen_features_give_the_same_numbers_on_disk_and_in_memory(own, monkeypatch):
    found = scores(trained(own))
    load = data.load
    monkeypatch.setattr("trainers.training.train.reading.load", lambda *a, memmap, **k: load(*a, **k))
    run = trained(own)
    assert [name for name in load_tensors(run / "weights.safetensors") if name.endswith(".table")]
    torch.testing.assert_close(scores(run), found, rtol=1e-4, atol=1e-4)


def test_a_run_says_that_its_features_have_changed(own):
    run = trained(own)
    shutil.rmtree(own.parent.parent / "work")
    synthetic.write(own, ENTITIES, seed=1, width=WIDTH)
    with pytest.raises(UserError, match="changed since"):
        runs.load_run(run)


def test_bernoulli_counts_distinct_pairs():
    triples = torch.tensor([[0, 0, 1], [0, 0, 2], [0, 0, 2], [3, 0, 1], [1, 2, 1]])
    # relation 0: heads 0, 3 and tails 1, 2; relation 1 has no triple
    assert bernoulli(triples, 3).tolist() == [0.5, 0.5, 0.5]
    assert bernoulli(triples[:3], 1).tolist() == pytest.approx([2 / 3])
    assert bernoulli(triples[:0], 2).tolist() == [0.5, 0.5]


def test_what_is_planted_can_be_learned(graph, tmp_path):
    given = data.load(graph / "graph", graph / "encoded", name="s", features=["image", "text"], memmap=tmp_path)
    settings = adamf_mat.Settings(
        batch_size=256, negatives=32, dimension=32, learning_rate=0.02, adversarial_weight=0.0, **LARGE
    )
    model = adamf_mat.build(given, settings, torch.Generator().manual_seed(0))
    learner = adamf_mat.Learner(model, given, settings, device=torch.device("cpu"), precision=torch.float32, seed=0)
    torch.manual_seed(0)
    for epoch in range(8):
        for batch in learner.batches(epoch):
            learner.step(batch)
    assert mrr(model, given, given.dev, queries=200) > 4 * synthetic.chance(ENTITIES)


def test_ranking_fuses_block_by_block_to_the_same_scores(graph, monkeypatch):
    given = data.load(graph / "graph", graph / "encoded", name="s", features=["image", "text"])
    model = adamf_mat.build(given, SETTINGS, torch.Generator().manual_seed(0))
    asked = torch.arange(4), torch.arange(4), "head"
    whole = model.scorer()(*asked)
    monkeypatch.setattr(adamf_mat, "BLOCK", 64)
    torch.testing.assert_close(model.scorer()(*asked), whole, rtol=1e-5, atol=1e-4)
