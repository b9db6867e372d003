"""Texts and pictures of entities: found, cleaned, stored; and the files that authors released.

`MODALITIES` is the one table of what an entity can have beside its place in the graph. Stages, training, studies,
coverage and report take their lists from it; docs/architecture.md, "A new modality", says what a row needs besides.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline import tables


@dataclass(frozen=True)
class Modality:
    """One row of `MODALITIES`.

    Attributes: name, as encoders (`KIND`), settings and the folder `encoded/<name>/` call it; label and plural, as
    people do; key, its block in params.yaml and the end of its stage's name, `encode_<key>`; source, the table below
    data/<graph>/ that is encoded, or a folder of its parts; kind, the table's schema; column, null where a row has
    nothing to encode; reader, `module:class` of the `Inputs` that read the source; encoder, the block of encoders that
    is used where params.yaml chooses none; drawn, what its inputs are called where code has drawn them.

    What comes out is the same for all: `encoded/<name>/{tokens,features,codebook}.parquet`.
    """

    name: str
    label: str
    plural: str
    key: str
    source: str
    kind: str
    column: str
    reader: str
    encoder: str
    drawn: str | None = None

    @property
    def stage(self) -> str:
        """The stage that encodes it."""
        return f"encode_{self.key}"

    def files(self, folder: Path) -> list[Path]:
        """The tables of its source below `folder`, data/<graph>, as far as they are there."""
        source = folder / self.source
        return [source] if source.is_file() else sorted(source.glob("part-*.parquet"))

    def called(self, folder: Path) -> str:
        """What one of its inputs is called in the graph of `folder`: a drawing is never called a picture."""
        if self.drawn is None:
            return self.label
        made = (json.dumps(tables.provenance(path)).lower() for path in self.files(folder))
        return self.drawn if any(self.drawn in one for one in made) else self.label


MODALITIES: dict[str, Modality] = {
    modality.name: modality
    for modality in (
        Modality(
            name="text",
            label="text",
            plural="texts",
            key="text",
            source="text.parquet",
            kind="text",
            column="text",
            reader="pipeline.encoding.inputs:Texts",
            encoder="minilm",
        ),
        Modality(
            name="image",
            label="picture",
            plural="pictures",
            key="images",
            source="images",
            kind="images",
            column="sha256",
            reader="pipeline.encoding.inputs:Pictures",
            encoder="patches",
            drawn="drawing",
        ),
    )
}


def used(names: Iterable[str]) -> list[str]:
    """Those of `names` that are rows of `MODALITIES`, in its order. Structure is not one: it has no table."""
    names = set(names)
    return [name for name in MODALITIES if name in names]
