"""Lists the stages of dvc.yaml, and the commands beside them, a line each: `python -m stages`."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent


def commands() -> dict[str, str]:
    """What can be started by `python -m`: module -> its docstring's first sentence. Nothing is imported for it."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        module = ".".join(path.relative_to(FOLDER.parent).with_suffix("").parts).removesuffix(".__main__")
        text = path.read_text(encoding="utf-8")
        if module != "stages" and 'if __name__ == "__main__":' in text:
            about = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
            found[module] = re.split(r"(?<=[.])\s", " ".join(about.split()))[0]
    return found


def of_pipeline() -> list[str]:
    """The modules that dvc.yaml runs, in its order."""
    text = (FOLDER.parent / "dvc.yaml").read_text(encoding="utf-8")
    return list(dict.fromkeys(re.findall(r"python -m (stages\.[\w.]+)", text)))


def listing() -> str:
    """Both lists, as they are printed."""
    about = commands()
    stages = of_pipeline()
    width = max(map(len, about))
    lines = ["Stages, which `dvc repro` runs in this order where something changed:"]
    lines += [f"  {name:{width}}  {about[name]}" for name in stages]
    lines += ["", "Commands beside them:"]
    lines += [f"  {name:{width}}  {text}" for name, text in about.items() if name not in stages]
    lines += ["", "Their arguments: python -m stages.train --help"]
    return "\n".join(lines)


if __name__ == "__main__":
    print(listing())
