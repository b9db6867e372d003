"""What MkDocs does beside reading docs/: the front page is the README, the configuration's page is generated, and
Mermaid blocks are shown as the drawings that docs/pictures.py made, so that no page asks another host for a script."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from docs.pictures import BLOCK, diagram, title
from stages.ops.reference import page

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    files.append(File.generated(config, "index.md", content=front()))
    files.append(File.generated(config, "configuration.md", content=page(ROOT)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Mermaid blocks become drawings; links that bear a page's path say its title; links out of docs/ lead to files of
    the project, which are no pages: their names stay, as code."""
    markdown = BLOCK.sub(lambda block: drawn(block[1]) or block[0], markdown)
    markdown = re.sub(r"(!\[[^\]]*\]\(images/[^)]+\.svg\))", r"\1{ .diagram }", markdown)  # see stylesheets/site.css
    markdown = re.sub(r"\[docs/([\w-]+\.md)\]", lambda found: f"[{heading(found[1])}]", markdown)
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)[^)]*\)", lambda found: named(found[1], found[2]), markdown)


def named(label: str, path: str) -> str:
    """What stands for a link to a file that is no page."""
    return f"`{path}`" if label == path else f"{label} (`{path}`)"


def heading(page: str) -> str:
    """The first heading of a page of docs/."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def drawn(source: str) -> str:
    """A block's drawing as an image; nothing where it has not been drawn."""
    place = diagram(source)
    return f"![{title(source)}](images/{place.name})\n" if place.exists() else ""


def front() -> str:
    """The README, its links as seen from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(\]\(|=\")docs/", r"\1", text)
    outside = r"\[([^\]]+)\]\((?!https?:|#)((?![\w-]+\.md|images/)[^)]+)\)"
    return re.sub(outside, lambda found: named(found[1], found[2]), text)
