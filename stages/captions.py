"""What a graph's pictures show, in words of an image-to-text model, through the feature store; off by default."""

import logging
from pathlib import Path

from pipeline import tables
from pipeline.versions import code_version
from stages.cli import arguments, stage
from stages.params import load_params

log = logging.getLogger(__name__)


@stage
def main() -> None:
    graph = arguments(__doc__, "graph").parse_args().graph
    params = load_params()
    folder = Path("data") / graph
    out = folder / "captions.parquet"
    if params.text.captions.model:
        from pipeline.encoding.inputs import Pictures  # here: they bring PyTorch, which takes seconds
        from stages import captioning

        inputs = Pictures(folder / "images")
        inputs.first(params.text.captions.pictures)
        if len(inputs.keys):
            captioning.make(params, graph, inputs, out)
            return
        log.warning("%s: no entity has a picture to put into words; there are no captions", graph)
    tables.write(out, "captions", {name: [] for name in tables.SCHEMAS["captions"].names},
                 {"model": None, "code_version": code_version(__file__)})  # fmt: skip


if __name__ == "__main__":
    main()
