"""Stage encode_images: tokens, features and codebook of a graph's pictures, encoding only what the store lacks."""

from stages.cli import stage
from stages.encoding import stage_main


@stage
def main() -> None:
    stage_main("image", "images")


if __name__ == "__main__":
    main()
