"""Where `encoded: released` takes the place of encoding: from params.yaml to pipeline/modalities/released.py."""

import logging
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pipeline import tables
from pipeline.download import sources
from pipeline.graph.matching import Names
from pipeline.modalities import Modality, released, released_files
from pipeline.retry import RetryPolicy
from pipeline.versions import code_version
from stages.params import RELEASED_FILES, Params, ReleasedFiles

log = logging.getLogger(__name__)


def asked_for(params: Params, graph: str, modality: Modality) -> bool:
    """Whether a modality of this graph is what its authors released."""
    block = params.graph[graph]
    return block.encoded == "released" and getattr(block.released, modality.name, None) is not None


def import_released(params: Params, graph: str, modality: Modality, counts_path: Path) -> None:
    """Write data/<graph>/encoded/<modality> from the released files, and what there is to know of them."""
    folder, kind = Path("data") / graph, modality.name
    block: ReleasedFiles = getattr(params.graph[graph].released, kind)
    files = released.Files(
        **{name: _path(params, folder, getattr(block, name)) for name in RELEASED_FILES},
        tokens_per_picture=block.tokens_per_picture,
        padding_rows=block.padding_rows,
        keep_placeholders=block.placeholders == "keep",
    )
    entities = tables.read(folder / "graph" / "entities.parquet", "entities").sort_by("entity_id")
    names = Names(entities["key"].to_pylist(), entities["label"].to_pylist())
    provenance = {"stage": modality.stage, "encoder": "released", "settings": block.model_dump()}
    provenance["code_version"] = code_version(released, released_files)
    counts = released.import_released(files, names, entities.num_rows, folder / "encoded" / kind, provenance)
    tables.write_json(counts_path, {"encoder": "released", **counts})
    log.info("%s: released %s brought in: %s", graph, kind, ", ".join(sorted(counts["files"])))


def _path(params: Params, folder: Path, name: str | None) -> Path | None:
    """The file that a name means: an address is fetched, a plain name may lie in raw."""
    if name is None:
        return None
    if "://" not in name:
        return Path(name) if Path(name).exists() or not (folder / "raw" / name).exists() else folder / "raw" / name
    into = Path("data/.work/released") / folder.name / PurePosixPath(urlsplit(name).path).name
    retry = RetryPolicy(params.sources.timeout, params.sources.retries)
    mirror = sources.chosen_mirror(params.sources.mirror)
    return sources.fetch(name, None, into, mirror=mirror, record=into.parent / "checksums.json", retry=retry).path
