"""The tiny graph with names, as tables that questions are asked of."""

from pipeline import tables
from tests.helpers.tiny import ENTITIES, write_tables


def write_names(graph, data) -> None:
    """The tables of the tiny graph. Entities 4 and 5 share a label, 6 and 7 an alias; 8 has a key like 9's label."""
    ids = range(ENTITIES)
    labels = [f"Entity {i}" for i in ids]
    labels[4] = labels[5] = "Mercury"
    labels[9] = "e8"
    relations = ["dbo:bandMember", "http://x.org/genre", "r2"], ["band member", "genre", "r"]
    write_tables(graph, data, ids, ([f"e{i}" for i in ids], labels), relations)
    aliases = [["Alpha"] if i == 3 else ["Twin"] if i in (6, 7) else [] for i in ids]
    text = {"entity_id": list(ids), "label": labels, "description": [f"the {i}th" for i in ids], "aliases": aliases,
            "text": labels, "source": ["test"] * ENTITIES, "status": ["ok"] * ENTITIES}  # fmt: skip
    tables.write(graph.parent / "text.parquet", "text", text, {})


def write_encoded(encoded, data) -> None:
    """The features and tokens of the tiny graph's texts and pictures."""
    for name, one in data.features.items():
        embedding = one.matrix.numpy()
        columns = {"entity_id": one.entity.int().numpy(), "embedding": embedding, "count": [1] * len(embedding)}
        tables.write(encoded / name / "features.parquet", "features", columns, {})
    for name, one in data.tokens.items():
        lists = [one.values[a:b].int().tolist() for a, b in zip(one.offsets[:-1], one.offsets[1:], strict=True)]
        columns = {"entity_id": one.entity.int().numpy(), "image_ix": [0] * len(lists), "token_ids": lists}
        tables.write(encoded / name / "tokens.parquet", "tokens", columns, {})
        columns = {"token_id": one.token_id.int().numpy(), "embedding": one.codebook.numpy()}
        tables.write(encoded / name / "codebook.parquet", "codebook", columns, {})
