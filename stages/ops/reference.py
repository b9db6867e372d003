"""Prints the reference of all keys, as Markdown: what the comments in params.yaml and configs/ say, key by key.

The documentation's page of configuration is made by it (docs/hooks.py), so that no key is explained twice.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from stages.cli import arguments, stage

PARAMS = Path("params.yaml")
KINDS = {"graphs": "mini", "models": "adamf_mat", "encoders": "minilm"}  # of configs/, and the file that explains most
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w-]+): ?(?P<value>.*)")


def keys(text: str) -> Iterator[tuple[str, str, str]]:
    """(key with its path, value, comment) of each key of a YAML file in the form that DVC writes.

    The comment is what stands right above the key, or above the block with `key: ` before it (DVC drops comments after
    a list, so lists are explained before).
    """
    known = {found["key"] for line in text.splitlines() if (found := LINE.fullmatch(line))}
    above: list[str] = []
    path: list[tuple[int, str]] = []
    said: dict[str, str] = {}
    for line in text.splitlines():
        found = LINE.fullmatch(line)
        if line.lstrip().startswith("# ---"):
            continue  # a rule between two parts of the file
        if line.lstrip().startswith("#"):
            above.append(line.lstrip()[1:].strip())
        elif found:
            depth = len(found["indent"])
            path = [one for one in path if one[0] < depth] + [(depth, found["key"])]
            name = ".".join(key for _, key in path)
            named = _named(above, known)
            said |= named
            comment = said.pop(found["key"], "") or ("" if named else " ".join(above))
            yield name, found["value"], comment
            above = []
        elif not line.strip():
            above = []


def _named(comment: list[str], known: set[str]) -> dict[str, str]:
    """The keys that a comment explains by name: `key: …`, or `key, other: …`, each to the next."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in comment:
        start = re.match(r"([a-z_]+(?:, [a-z_]+)*): (\S.*)", line)
        if start and known.issuperset(start[1].split(", ")):
            names = start[1].split(", ")
            found |= dict.fromkeys(names, start[2])
        else:
            found |= {name: f"{found[name]} {line}" for name in names}
    return found


def section(title: str, root: Path, path: Path) -> str:
    """One file, a path below `root`, as a table of its keys."""
    rows = [f"## {title}\n", f"`{path.as_posix()}`\n", "| key | value there | what it means |", "|---|---|---|"]
    for name, value, comment in keys((root / path).read_text(encoding="utf-8")):
        cells = (f"`{name}`", f"`{value}`" if value else "", comment)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def page(root: Path = Path(".")) -> str:
    """The whole reference."""
    parts = [
        "# Configuration\n\nWritten by `python -m stages.ops.reference` from the comments in the files themselves. An "
        "unknown or ill-typed key stops before anything runs.\n",
        section("What you choose", root, PARAMS),
    ]
    for kind, example in KINDS.items():
        folder = Path("configs", kind)
        parts.append(section(f"One of {kind}: {example}", root, folder / f"{example}.yaml"))
        others = sorted(path.name for path in (root / folder).glob("*.yaml") if path.stem != example)
        parts += [section(f"{kind}: {name.removesuffix('.yaml')}", root, folder / name) for name in others]
    return "\n".join(parts)


@stage
def main() -> None:
    arguments(__doc__).parse_args()
    print(page(), end="")


if __name__ == "__main__":
    main()
