"""What MkDocs does beside reading docs/: the front page is the README, and the configuration's page is generated."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from stages.ops.reference import page

ROOT = Path(__file__).parent.parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that no file of docs/ holds."""
    files.append(File.generated(config, "index.md", content=front()))
    files.append(File.generated(config, "configuration.md", content=page(ROOT)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links out of docs/ lead to files of the project, which are no pages: their names stay, as code."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)[^)]*\)", r"\1 (`\2`)", markdown)


def front() -> str:
    """The README, its links as seen from docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)((?![\w-]+\.md|images/)[^)]+)\)", r"\1 (`\2`)", text)
