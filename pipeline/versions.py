"""Versions of the code that made something: the one notion that DVC, run folders and the feature store share.

What counts is the syntax: names, operations, constants, type hints, the order of statements. Comments, layout, quotes,
docstrings and other strings that stand alone do not, for they cannot change a number. C counts by its content.

A module counts together with the project's modules that it imports, directly or not, wherever in it the import stands.
How far imports are followed is the caller's to say, by what its result rests on:

- a table or a row of the feature store: within the folder of the module itself (a family of encoders and its helpers).
  Files, tables and devices are handled elsewhere, and changing those must not throw the store away.
- a run: through the whole project, from the model and from the training loop, which brings the evaluator with it.
- a stage of dvc.yaml: through the whole project, from its script.

Modules that are loaded by name (models, families of encoders) are no imports, so a stage's version leaves them out, and
dvc.yaml names them beside it. `__init__.py` of a folder within which imports are followed, and of the three packages,
does not count, nor does what `_NEVER` lists: it says what there is and how a refusal is worded.
"""

import ast
import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "stages", "trainers")
_NEVER = frozenset(
    {
        "pipeline/errors.py",
        "pipeline/settings.py",
        "pipeline/versions.py",
        *(f"{name}/__init__.py" for name in PACKAGES),
    }
)
_UNCOUNTED = frozenset({"kind", "type_comment", "type_ignores"})  # fields of the syntax tree that hold no code


def code_version(
    *modules: ModuleType | str | Path,
    whole: bool = False,
    root: Path = ROOT,
    but: Collection[str] = (),
    read: dict[Path, set[Path]] | None = None,
) -> str:
    """Twelve hexadecimal digits for the code of modules, or of files by their paths, and of what they import.

    Imports are followed within the folder of each module or, if `whole`, through the whole project, which lies in
    `root`; `but` names files below it that do not count. `read` keeps what each file imports for the next question, if
    several are asked while no file changes.
    """
    read = {} if read is None else read
    starts = [Path(str(one.__file__) if isinstance(one, ModuleType) else one).resolve() for one in modules]
    files: set[Path] = set()
    for start in starts:
        files |= closure([start], root, but, within=None if whole else start.parent, read=read)
    digest = hashlib.sha256()
    for name, file in sorted((_name(file, root.resolve()), file) for file in files):
        digest.update(name.encode() + b"\0" + _content(file).encode() + b"\0")
    return digest.hexdigest()[:12]


def closure(
    starts: Iterable[Path],
    root: Path = ROOT,
    but: Collection[str] = (),
    within: Path | None = None,
    read: dict[Path, set[Path]] | None = None,
) -> set[Path]:
    """The project's files that running `starts` imports, themselves included, and the C files beside them.

    `root` is the project's folder, `but` names files below it that do not count (what they import does not either);
    `within` is the folder that imports are followed in; `read` as in `code_version`.
    """
    read = {} if read is None else read
    root = root.resolve()
    without = {root / name for name in _NEVER.union(but)} | ({within / "__init__.py"} if within else set())
    seen: set[Path] = set()
    todo = {file.resolve() for file in starts}
    while todo:
        here = todo.pop()
        seen.add(here)
        if here not in read:
            read[here] = set(_imported(here, root))
        todo |= {one for one in read[here] if within is None or one.parent == within} - seen - without
    return seen | {file for folder in {file.parent for file in seen} for file in _c_files(folder)}


def _c_files(folder: Path) -> list[Path]:
    """They are compiled into one library, so each of the folder's modules may call any of them."""
    return [*folder.glob("*.c"), *folder.glob("*.h")]


def _name(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _content(file: Path) -> str:
    return _parsed(file)[0] if file.suffix == ".py" else hashlib.sha256(file.read_bytes()).hexdigest()


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """The project's files that a file imports itself, with the `__init__.py` of each package on the way."""
    for level, name in _parsed(file)[1]:
        parts = name.split(".") if name else []
        if level:  # `from . import x`: counted from the file's own package
            parts = [*file.relative_to(root).parts[:-level], *parts]
        if parts and parts[0] in PACKAGES:
            for end in range(1, len(parts) + 1):
                base = root.joinpath(*parts[:end])
                yield from (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file())


def _parsed(file: Path) -> tuple[str, tuple[tuple[int, str], ...]]:
    """The digest of a file's syntax, and what it imports as (dots before it, name)."""
    return _parsed_content(file.read_bytes())


@functools.lru_cache(maxsize=1024)
def _parsed_content(content: bytes) -> tuple[str, tuple[tuple[int, str], ...]]:
    words: list[str] = []
    names: list[tuple[int, str]] = []
    _in_words(ast.parse(content), words, names)
    return hashlib.sha256("".join(words).encode()).hexdigest(), tuple(names)


def _in_words(node: object, words: list[str], names: list[tuple[int, str]]) -> None:
    """Append a syntax tree as text, and what it imports as (dots before it, name).

    The text is the same in every version of Python: empty fields are left out, not spelt out.
    """
    if isinstance(node, ast.AST):
        kind: type = type(node)
        before = f"{kind.__name__}("
        for start, name in _counted(kind):
            value = getattr(node, name, None)
            if value is None or value == []:
                continue
            words.append(before + start)
            before = ","
            _in_words(value, words, names)
        words.append(")" if before == "," else f"{before})")
        if kind is ast.Import or kind is ast.ImportFrom:
            names += _names(node)
    elif isinstance(node, list):
        before = "["
        for one in node:
            if not _stands_alone(one):
                words.append(before)
                before = ","
                _in_words(one, words, names)
        words.append("]" if before == "," else "[]")
    else:
        words.append(repr(node))


@functools.cache
def _counted(kind: type[ast.AST]) -> list[tuple[str, str]]:
    """The fields of a kind of node that count: how each begins in the text, and its name."""
    return [(f"{name}=", name) for name in kind._fields if name not in _UNCOUNTED]


def _names(node: ast.AST) -> Iterator[tuple[int, str]]:
    """What an import brings in as (dots before it, name); no other node does."""
    if isinstance(node, ast.Import):
        yield from ((0, alias.name) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        module = f"{node.module}." if node.module else ""
        yield from ((node.level, f"{module}{alias.name}") for alias in node.names)


def _stands_alone(node: object) -> bool:
    """Whether a statement is only a string: a docstring, or what somebody writes like one."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
