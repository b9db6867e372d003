"""The Ray executor gives the rows of a local run, on a local cluster of two nodes."""

import sys

import pytest

from pipeline.encoding import encoders
from pipeline.encoding import ray as encode_ray
from pipeline.encoding.inputs import Pictures, Texts
from pipeline.encoding.run import encode_modality
from pipeline.encoding.store import Stores
from pipeline.errors import UserError
from tests.helpers import encoder_zoo as zoo

TABLES = ("tokens", "features", "codebook")


def world(tmp_path, kind):
    """(inputs, encoder, recipe) with missing rows and repeated inputs."""
    if kind == "text":
        given = {n: None if n % 9 == 0 else zoo.text(n % 40) for n in range(120)}
        inputs = Texts(zoo.write_texts(tmp_path / "text.parquet", given))
        block = {"family": "language", "model": str(zoo.bert(tmp_path / "bert"))}
    else:
        rows = [(n // 2, n % 2, zoo.picture(n % 30)) for n in range(60)]
        inputs = Pictures(zoo.write_pictures(tmp_path / "images", rows))
        block = {"family": "patches", "codes": 16, "size": 32}
    encoder = zoo.load("it", block, inputs)
    extra = {"centroids": encoder._centroids.numpy()} if kind == "image" else {}
    return inputs, encoder, encode_ray.Recipe("it", block, kind, "float32", encoder.fingerprint, extra)


def publish(inputs, encoder, kind, store, out):
    stores = Stores(str(store), store.parent / "scratch", kind, encoder.fingerprint)
    counts = encode_modality(inputs, encoder, stores, out, provenance=encoder.fingerprint)
    return counts, [(out / f"{name}.parquet").read_bytes() for name in TABLES]


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="the extra ray is not installed")
    import ray
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 2, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args=node)
    made.add_node(**node)
    yield made.address
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["text", "image"])
def test_same_rows_as_a_local_run(kind, cluster, tmp_path):
    inputs, encoder, recipe = world(tmp_path, kind)
    _, local = publish(inputs, encoder, kind, tmp_path / "local", tmp_path / "local-out")
    distinct = len(set(map(bytes, inputs.keys)))
    assert encode_ray.fill(inputs, recipe, str(tmp_path / "ray"), address=cluster, batch_size=8) == distinct
    counts, same = publish(inputs, encoder, kind, tmp_path / "ray", tmp_path / "ray-out")
    assert (counts.found, counts.encoded) == (counts.inputs, 0)
    assert same == local
    assert encode_ray.fill(inputs, recipe, str(tmp_path / "ray"), address=cluster) == 0, "nothing is left to do"


@pytest.mark.slow
def test_no_cluster_is_a_sentence(tmp_path):
    pytest.importorskip("ray", reason="the extra ray is not installed")
    inputs, _, recipe = world(tmp_path, "text")
    with pytest.raises(UserError, match=r"No Ray cluster answers at '127\.0\.0\.1:9'"):
        encode_ray.fill(inputs, recipe, str(tmp_path / "ray"), address="127.0.0.1:9")


def test_without_ray_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    inputs, _, recipe = world(tmp_path, "image")
    with pytest.raises(UserError, match="needs Ray, which is not installed"):
        encode_ray.fill(inputs, recipe, str(tmp_path / "ray"))


def test_a_worker_gives_the_rows_of_a_local_run(tmp_path):
    """The functions that the cluster runs, in this process: rows chosen, encoded and written as parts."""
    import numpy as np
    import pyarrow.parquet as pq

    for kind, column in (("text", "text"), ("image", "bytes")):
        inputs, encoder, recipe = world(tmp_path / kind, kind)
        _, local = publish(inputs, encoder, kind, tmp_path / f"local-{kind}", tmp_path / f"local-{kind}-out")
        _, first = np.unique(inputs.keys, return_index=True)
        places = encode_ray._place(inputs.entity[first], inputs.image_ix[first].astype(np.int64))
        worker = encode_ray.Worker(recipe, "cpu", 8)
        store = tmp_path / f"ray-{kind}"
        for path in inputs.files:
            chosen = encode_ray._chosen(pq.read_table(path), column, places)
            encode_ray._write(worker(chosen), str(store), kind, recipe.fingerprint)
        counts, same = publish(inputs, encoder, kind, store, tmp_path / f"ray-{kind}-out")
        assert counts.encoded == 0
        assert same == local


def test_a_worker_batches_short_texts_by_tokens_as_a_local_run_does(tmp_path, monkeypatch):
    import pyarrow as pa

    _, _, recipe = world(tmp_path, "text")
    sizes = []
    rows_of = encode_ray.rows_of
    monkeypatch.setattr(
        encode_ray, "rows_of", lambda encoder, batch: sizes.append(len(batch)) or rows_of(encoder, batch)
    )
    same = pa.table({"raw": ["house on the hill"] * 12})
    for longest in (0, 256):
        encode_ray.Worker(recipe, "cpu", 4, longest)(same)
    assert sizes == [4, 4, 4, 12]


def test_a_worker_with_other_code_or_weights_is_refused(tmp_path):
    _, _, recipe = world(tmp_path, "text")
    zoo.bert(tmp_path / "bert", hidden=64)
    with pytest.raises(UserError, match="bring its code and weights up to date"):
        encode_ray.Worker(recipe, "cpu", 8)
    assert encoders.pick_device("auto")
