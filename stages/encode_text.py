"""Stage encode_text: tokens, features and codebook of a graph's texts, encoding only what the store lacks."""

from stages.cli import stage
from stages.encoding import stage_main


@stage
def main() -> None:
    stage_main("text", "text")


if __name__ == "__main__":
    main()
