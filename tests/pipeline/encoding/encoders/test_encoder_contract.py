"""What every encoder must hold, run over every family on disk through the reader, the store and the writer."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas
import polars
import pyarrow.parquet as pq
import pytest

from pipeline import tables
from pipeline.encoding import encoders
from pipeline.encoding.inputs import Pictures, Texts
from pipeline.encoding.run import Counts, encode_modality, rows_of
from pipeline.encoding.store import Stores
from tests.helpers import encoder_zoo as zoo

TABLES = ("tokens", "features", "codebook")
ENTITIES = 60


def test_every_family_on_disk_is_in_the_zoo(zoo_blocks):
    """A family's file is one that has a KIND; it must be in the table of families, and be tried here."""
    folder = Path(encoders.__file__).parent
    on_disk = {path.stem for path in folder.glob("*.py") if "\nKIND = " in path.read_text()}
    assert on_disk == set(encoders.families())
    assert {block["family"] for block in zoo_blocks.values()} == on_disk
    assert set(zoo_blocks) == set(zoo.NAMES)


@pytest.fixture(scope="session")
def zoo_blocks(tmp_path_factory):
    return zoo.blocks(tmp_path_factory.mktemp("zoo"))


@dataclass
class World:
    """One encoder, a graph's inputs for it, and a way to run it."""

    name: str
    block: dict
    folder: Path
    kind: str
    made: object = None

    def inputs(self, reverse: bool = False, only: int = ENTITIES) -> Texts | Pictures:
        """Entities from 3 up; every 7th has no input; pictures: one to three each, written in either order."""
        place = self.folder / f"inputs-{reverse}-{only}"
        order = sorted(range(3, 3 + only), reverse=reverse)
        if self.kind == "text":
            texts = {entity: None if entity % 7 == 0 else zoo.text(entity) for entity in order}
            return Texts(zoo.write_texts(place / "text.parquet", texts))
        rows = [
            (entity, ix, None if entity % 7 == 0 else zoo.picture(10 * entity + ix, 40 + 3 * ix))
            for entity in order
            for ix in range(1 + entity % 3)
        ]
        return Pictures(zoo.write_pictures(place, rows))

    def encoder(self):
        """The same encoder each time; a learned codebook is that of all inputs."""
        if self.made is None:
            self.made = zoo.load(self.name, self.block, self.inputs())
        return self.made

    def run(
        self, out: str, *, store: str = "store", batch_size: int = 16, streams: int = 1, inputs=None
    ) -> tuple[Path, Counts]:
        encoder = self.encoder()
        stores = Stores(str(self.folder / store), self.folder / "scratch", self.kind, encoder.fingerprint)
        provenance = {"encoder": self.name, **encoder.fingerprint}
        counts = encode_modality(
            inputs or self.inputs(),
            encoder,
            stores,
            self.folder / out,
            provenance=provenance,
            batch_size=batch_size,
            streams=streams,
        )
        return self.folder / out, counts


@pytest.fixture(params=zoo.NAMES)
def world(request, zoo_blocks, tmp_path):
    block = zoo_blocks[request.param]
    return World(request.param, block, tmp_path, encoders.families()[block["family"]].KIND)


def contents(folder: Path) -> list[bytes]:
    return [(folder / f"{name}.parquet").read_bytes() for name in TABLES]


def test_contract(world):
    first, counts = world.run("first")
    assert counts.encoded == counts.inputs > 16
    assert counts.found == 0

    again, counts = world.run("again")
    assert (counts.encoded, counts.found) == (0, counts.inputs)
    assert contents(again) == contents(first), "after a restart, from the store"

    world.made = None
    other, _ = world.run("other", store="other", batch_size=5)
    assert contents(other) == contents(first), "another batch size"

    world.made = None
    streams, _ = world.run("streams", store="streams", batch_size=3, streams=3)
    assert contents(streams) == contents(first), "several batches at once"

    reverse, _ = world.run("reverse", store="reverse", inputs=world.inputs(reverse=True))
    assert contents(reverse) == contents(first), "another order"

    check_rows(world, first)
    check_alone(world, first)
    check_readers(first)
    check_metadata(world, first)


def check_rows(world: World, folder: Path) -> None:
    """Rows are those of the entities with an input, and stand under their ids."""
    inputs = world.inputs()
    entities = sorted(set(inputs.entity.tolist()))
    assert all(entity % 7 for entity in entities)
    features = tables.read(folder / "features.parquet", "features")
    tokens = tables.read(folder / "tokens.parquet", "tokens")
    codes = tables.read(folder / "codebook.parquet", "codebook", ["token_id"])["token_id"].to_pylist()
    if world.name != "bert-tokens":
        assert features["entity_id"].to_pylist() == entities
    if world.name != "timm":
        pairs = list(zip(tokens["entity_id"].to_pylist(), tokens["image_ix"].to_pylist(), strict=True))
        assert pairs == list(zip(inputs.entity.tolist(), inputs.image_ix.tolist(), strict=True))
        used = {token for row in tokens["token_ids"].to_pylist() for token in row}
        assert codes == sorted(used), "the codebook holds the tokens that are used, ascending"
        width = tables.read(folder / "codebook.parquet", "codebook")["embedding"].type.list_size
        assert width > 1
    if world.kind == "image":
        assert features["count"].to_pylist() == [int((inputs.entity == entity).sum()) for entity in entities]


def check_alone(world: World, folder: Path) -> None:
    """Each row is what the encoder says of that input alone."""
    inputs, encoder = world.inputs(), world.encoder()
    tokens = tables.read(folder / "tokens.parquet", "tokens").to_pylist()
    ids, matrix = tables.features(folder / "features.parquet") if world.name != "bert-tokens" else ([], None)
    raw = {key: content for some in inputs.read(np.ones(len(inputs.keys), bool), 50) for key, content in some}
    for entity in np.unique(inputs.entity)[::9]:
        rows = np.flatnonzero(inputs.entity == entity)
        alone = [rows_of(encoder, encoder.prepare([raw[bytes(inputs.keys[row]).ljust(32, b"\0")]])) for row in rows]
        if matrix is not None:
            mean = np.mean([one.features[0] for one in alone], axis=0)
            np.testing.assert_allclose(matrix[np.flatnonzero(ids == entity)[0]], mean, rtol=1e-6, atol=1e-7)
        listed = [row["token_ids"] for row in tokens if row["entity_id"] == entity]
        assert listed == [one.tokens[0].tolist() for one in alone if len(one.tokens[0])]


def check_readers(folder: Path) -> None:
    """pandas, polars and DuckDB read the same rows."""
    for name in TABLES:
        path = str(folder / f"{name}.parquet")
        rows = pq.read_metadata(path).num_rows
        assert len(pandas.read_parquet(path)) == rows
        assert len(polars.read_parquet(path)) == rows
        assert duckdb.sql(f"select count(*) from '{path}'").fetchall() == [(rows,)]


def check_metadata(world: World, folder: Path) -> None:
    for name in TABLES:
        provenance = tables.provenance(folder / f"{name}.parquet")
        assert provenance["encoder"] == world.name
        assert len(provenance["weights"]) >= 40, "sha256 or revision"
        assert len(provenance["code_version"]) >= 12, "the code's version"
        assert {"family", "precision"} <= set(provenance)
