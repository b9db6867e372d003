"""What the README and docs/ show: their pages, and the commands on them as somebody would copy them."""

import re
from pathlib import Path

from tests.helpers.clones import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "data").glob("*/README.md"))]  # fmt: skip
PROGRAMS = "make|python -m|dvc|pip|torchrun|tensorboard|sed"
IN_BLOCK = re.compile(rf"^ *(?:\$ )?((?:{PROGRAMS}) .*)$", re.M)
INLINE = re.compile(rf"`((?:{PROGRAMS})\s[^`]+)`")
FENCED = re.compile(r"^```(?:bash|sh|)\n(.*?)^```", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4}.*\n)+", re.M)


def shown(path: Path) -> list[str]:
    """The commands that a page shows, in blocks of code and within sentences, without their comments."""
    text = path.read_text(encoding="utf-8")
    blocks = [*FENCED.findall(text), *INDENTED.findall(text)]
    found = [one for block in blocks for one in IN_BLOCK.findall(block.replace("\\\n", " "))] + INLINE.findall(text)
    lines = [re.sub(r"\s*\n\s*", " ", re.sub(r"\s+#\s.*", "", one)).strip() for one in found]
    return [command for line in lines for command in line.split(" && ")]


def examples(path: Path) -> list[str]:
    """The blocks of Python that a page shows."""
    return re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def all_shown() -> list[str]:
    """Each command once, in the pages' order: what one writes another may read."""
    return list(dict.fromkeys(command for path in PAGES for command in shown(path)))
