"""Stage encode_text: tokens, features and codebook of a graph's texts, encoding only what the store lacks."""

from stages import encoding
from stages.cli import stage
from stages.params import Params


def choice(params: Params) -> encoding.Choice:
    """What of params.yaml decides the rows."""
    return encoding.Choice(params.text.encoder, params.encoders[params.text.encoder], params.encode.precision)


@stage
def main() -> None:
    encoding.run("text", "text", choice)


if __name__ == "__main__":
    main()
