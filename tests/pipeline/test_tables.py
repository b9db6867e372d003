"""What a table says of its making."""

import json

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import tables


def test_provenance_is_read_back(tmp_path):
    tables.write(tmp_path / "t.parquet", "codebook", {"token_id": [0], "embedding": [[1.0]]}, {"encoder": "bert"})
    assert tables.provenance(tmp_path / "t.parquet") == {"encoder": "bert"}


def test_the_provenance_of_a_file_by_version_0_1_is_read(tmp_path):
    table = pa.table({"token_id": [0]}).replace_schema_metadata({"tessera.made_by": json.dumps({"encoder": "bert"})})
    pq.write_table(table, tmp_path / "t.parquet")
    assert tables.provenance(tmp_path / "t.parquet") == {"encoder": "bert"}
