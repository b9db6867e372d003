"""Stage encode_images: tokens, features and codebook of a graph's pictures, encoding only what the store lacks."""

from stages import encoding
from stages.cli import stage
from stages.params import Params


def choice(params: Params) -> encoding.Choice:
    """What of params.yaml decides the rows."""
    return encoding.Choice(params.images.encoder, params.encoders[params.images.encoder], params.encode.precision)


@stage
def main() -> None:
    encoding.run("image", "images", choice)


if __name__ == "__main__":
    main()
