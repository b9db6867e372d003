"""Check BEiT v2's public tokenizer against the ids its authors print for their demo picture.

    python -m stages.ops.check_beit --picture ilsvrc2012_val_00031649.jpg
    python -m stages.ops.check_beit --picture … --weights vqkd_encoder_base_decoder_1x768x12_clip-d93179da.pth

Without --weights, the address in configs/encoders/beit.yaml is fetched, through the mirror if there is one.
"""

import argparse
from pathlib import Path

import torch

from pipeline.encoding.encoders import InvalidInput, beit, pictures
from pipeline.encoding.encoders.weights import fetched
from pipeline.errors import UserError
from pipeline.retry import RetryPolicy
from stages.cli import stage
from stages.encode import WEIGHTS
from stages.params import load_params

# The first row of 14 and the last four of 196 ids, as the authors' README (unilm/beit2, "vqkd_encoder_base_decoder_
# 1x768x12_clip") prints them.
FIRST = (3812, 7466, 1913, 1913, 1903, 1913, 1903, 1913, 3812, 7820, 6337, 2189, 7466, 7466)
LAST = (5698, 4648, 4171, 6501)


def check(tokens: list[int]) -> None:
    """Raises UserError naming the first place where the ids are not the published ones."""
    if len(tokens) != 196:
        raise UserError(f"The tokenizer gives {len(tokens)} ids instead of 196; these are other weights.")
    for place, expected in [*enumerate(FIRST), *enumerate(LAST, start=196 - len(LAST))]:
        if tokens[place] != expected:
            raise UserError(
                f"Patch {place} has the id {tokens[place]}, but {expected} was published; "
                "check that weights and picture are the authors'."
            )


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, required=True, help="the demo picture of the authors' repository")
    parser.add_argument("--weights", type=Path, help="the checkpoint; default: that of configs/encoders/beit.yaml")
    options = parser.parse_args()
    if options.weights is None:
        params = load_params()
        retry = RetryPolicy(timeout=params.sources.timeout, retries=params.sources.retries)
        block = fetched(params.encoders["beit"], WEIGHTS, mirror=params.sources.mirror, retry=retry)
        options.weights = Path(str(block["weights"]))
    if not options.picture.is_file():
        raise UserError(f"There is no picture at {options.picture}.")
    picture = pictures.decode(options.picture.read_bytes())
    if isinstance(picture, InvalidInput):
        raise UserError(f"{options.picture}: {picture}")
    model = beit.tokenizer(options.weights, heads=12)
    with torch.inference_mode():
        _, _, tokens = model(pictures.pixels(beit.cut(picture, model.shape.image))[None].float() / 255)
    check(tokens[0].tolist())
    print(f"the {len(FIRST) + len(LAST)} published ids agree")


if __name__ == "__main__":
    main()
