"""How large an installation is: MB of each distribution of this environment, and which requirement brings it.

    python -m benchmarks.install_size [--least 1]

A table, the largest first, of those of at least so many MB: its size (the files that its record names), the groups of
pyproject.toml that cannot do without it ("mandatory", else extras by name), and the requirements in those groups that
ask for it, directly or through others. Below it the size of each group, alone and beside what is mandatory. What no
group asks for is of the environment.
"""

import argparse
import importlib.metadata
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

MANDATORY = "mandatory"
Asked = Callable[[str], Iterable[str]]  # a distribution's name -> its requirements, as their files write them


@dataclass(frozen=True)
class Size:
    """One installed distribution: `by` is group -> the requirements in it that ask for it."""

    name: str
    bytes: int
    by: dict[str, list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--least", type=float, default=1, help="MB of the smallest distribution that is shown")
    arguments = parser.parse_args()
    groups = required(Path(__file__).parents[1] / "pyproject.toml")
    print(page(sizes(groups, installed(), asked), arguments.least), end="")


def required(project: Path) -> dict[str, list[str]]:
    """group -> its requirements, of a pyproject.toml."""
    found = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    return {MANDATORY: found["dependencies"], **found["optional-dependencies"]}


def installed() -> dict[str, int]:
    """name -> bytes of each distribution here: of its files that are there, each link as long as its target's name."""
    found = {}
    for one in importlib.metadata.distributions():
        paths = {Path(str(file.locate())) for file in one.files or ()}
        found[normal(one.metadata["Name"])] = sum(path.lstat().st_size for path in paths if path.is_file())
    return found


def asked(name: str) -> Iterable[str]:
    """What an installed distribution requires."""
    return importlib.metadata.requires(name) or ()


def sizes(groups: dict[str, list[str]], bytes_of: dict[str, int], asked: Asked) -> list[Size]:
    """Each distribution with who brings it, the largest first."""
    by: dict[str, dict[str, list[str]]] = {name: {} for name in bytes_of}
    for group, requirements in groups.items():
        for one in map(Requirement, requirements):
            for name in reached(one, bytes_of, asked):
                by[name].setdefault(group, []).append(one.name)
    found = [Size(name, size, by[name]) for name, size in bytes_of.items()]
    return sorted(found, key=lambda size: (-size.bytes, size.name))


def reached(first: Requirement, bytes_of: dict[str, int], asked: Asked) -> set[str]:
    """The installed distributions that a requirement asks for, directly or through others, on this machine."""
    found: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [first]
    while waiting:
        one = waiting.pop()
        name, extras = normal(one.name), frozenset(one.extras)
        if name not in bytes_of or (name, extras) in seen:
            continue
        seen.add((name, extras))
        found.add(name)
        for text in asked(name):
            further = Requirement(text)
            marker = further.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras | {""}):
                waiting.append(further)
    return found


def normal(name: str) -> str:
    """A distribution's name as PEP 503 writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def page(found: list[Size], least: float) -> str:
    """The two tables as Markdown."""
    out = ["| MB | distribution | group | brought by |", "|---:|---|---|---|"]
    for one in found:
        if one.bytes >= least * 1e6:
            groups = [MANDATORY] if MANDATORY in one.by else sorted(one.by)
            names = sorted({name for group in groups for name in one.by[group]})
            out.append(
                f"| {one.bytes / 1e6:,.1f} | {one.name} | {', '.join(groups) or '–'} | {', '.join(names) or '–'} |"
            )
    base = {one.name for one in found if MANDATORY in one.by}
    out += ["", "| group | MB | MB beside what is mandatory |", "|---|---:|---:|"]
    for group in dict.fromkeys([MANDATORY, *sorted({group for one in found for group in one.by})]):
        own = [one for one in found if group in one.by]
        more = sum(one.bytes for one in own if one.name not in base)
        out.append(f"| {group} | {sum(one.bytes for one in own) / 1e6:,.0f} | {more / 1e6:,.0f} |")
    rest = sum(one.bytes for one in found if not one.by)
    return "\n".join([*out, f"| of the environment | {rest / 1e6:,.0f} | {rest / 1e6:,.0f} |"]) + "\n"


if __name__ == "__main__":
    main()
