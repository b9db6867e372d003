"""No kernel takes an address of what has another shape, type or layout than it will read or write."""

import hashlib
import re
from pathlib import Path

import pytest
import torch

from trainers import kernels
from trainers.kernels import (
    address,
    attention,
    bce,
    cross_entropy,
    dropout,
    ent_attention,
    gathered,
    library,
    rotate,
    tucker,
    walker,
)

pytestmark = pytest.mark.skipif(library() is None, reason="the C kernels are not built")


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(*shape, dtype=dtype)


def whole(*shape: int) -> torch.Tensor:
    return zeros(*shape, dtype=torch.int64)


def segment(table: torch.Tensor, index: torch.Tensor | None, absent: torch.Tensor | None = None):
    return ent_attention.Segment(table, index, absent, 0.0)


def mixed(*segments):
    return ent_attention.mix(list(segments), zeros(2, 8), zeros(2, 1 + len(segments)), 0.0)


def walked(width: int = 16, depth: int = 2, source=torch.int32, hidden: int = 2, relations: int = 4):
    edges = walker.Edges(whole(6), zeros(3, dtype=source), zeros(3, dtype=torch.int32), 4, zeros(3))
    layers = walker.Layers(zeros(depth, width, 3 * width), *(zeros(depth, width) for _ in range(3)))
    weight = zeros(2, depth, relations, width)
    queries = walker.Queries(whole(2), zeros(2, width), zeros(2, width), weight, whole(2, hidden) - 1)
    return walker.scores(edges, layers, queries)


NO = torch.bool
WRONG = {
    "walker: a width that it is not made for": lambda: walked(width=24),
    "walker: too many layers": lambda: walked(depth=17),
    "walker: edges of int64": lambda: walked(source=torch.int64),
    "walker: one hidden edge a query": lambda: walked(hidden=1),
    "walker: weights of half the relations": lambda: walked(relations=2),
    "rotate: a query that is one vector (a 0-d id)": lambda: rotate.all_distances(zeros(8), zeros(5, 8)),
    "rotate: a query of another width": lambda: rotate.all_distances(zeros(3, 6), zeros(5, 8)),
    "rotate: float64": lambda: rotate.all_distances(zeros(3, 8, dtype=torch.float64), zeros(5, 8)),
    "rotate: an odd width": lambda: rotate.all_distances(zeros(3, 7), zeros(5, 7)),
    "rotate: candidates of int32": lambda: rotate.distances(
        zeros(3, 2, 8), zeros(5, 8), zeros(3, 4, dtype=torch.int32), zeros(3, 4, dtype=NO)
    ),
    "rotate: fewer queries than rows of candidates": lambda: rotate.distances(
        zeros(2, 2, 8), zeros(5, 8), whole(3, 4), zeros(3, 4, dtype=NO)
    ),
    "rotate: sides as numbers": lambda: rotate.distances(zeros(3, 2, 8), zeros(5, 8), whole(3, 4), whole(3, 4)),
    "gathered: candidates of int32": lambda: gathered.products(
        zeros(3, 2, 8), zeros(5, 8), zeros(3, 4, dtype=torch.int32), zeros(3, 4, dtype=NO)
    ),
    "gathered: queries of another width": lambda: gathered.distances(
        zeros(3, 2, 6), zeros(5, 8), whole(3, 4), zeros(3, 4, dtype=NO), 1
    ),
    "gathered: fewer sides": lambda: gathered.products(zeros(3, 2, 8), zeros(5, 8), whole(3, 4), zeros(3, 3, dtype=NO)),
    "attention: parts of two widths": lambda: attention.attend([zeros(3, 8), zeros(3, 7)], zeros(8)),
    "attention: a weight of another width": lambda: attention.attend([zeros(3, 8), zeros(3, 8)], zeros(7)),
    "attention: presence of fewer rows": lambda: attention.attend(
        [zeros(3, 8), zeros(3, 8)], zeros(8), zeros(2, 2, dtype=NO)
    ),
    "bce: fewer weights than rows": lambda: bce.cost_and_slope_(zeros(4, 6), zeros(3), zeros(6), 0.1),
    "bce: fewer weights than columns": lambda: bce.cost_and_slope_(zeros(4, 6), zeros(4), zeros(5), 0.1),
    "bce: half precision": lambda: bce.cost_and_slope_(zeros(4, 6).bfloat16(), zeros(4), zeros(6), 0.1),
    "bce: a total of fewer columns": lambda: bce.add_sigmoid_(zeros(4, 5), zeros(4, 6), 1.0),
    "bce: a transposed total": lambda: bce.add_sigmoid_(zeros(6, 4).T, zeros(4, 6), 1.0),
    "cross entropy: fewer targets": lambda: cross_entropy.cost_and_slope_(zeros(4, 6), whole(3), 1.0),
    "cross entropy: targets of int32": lambda: cross_entropy.cost_and_slope_(
        zeros(4, 6), zeros(4, dtype=torch.int32), 1.0
    ),
    "dropout: float64": lambda: dropout.drop(zeros(4, dtype=torch.float64), 1, 0.5),
    "tucker: fewer rows of the index": lambda: tucker.contract(zeros(4, 6), zeros(2, 3), zeros(3, 6, 6), whole(3), 0.0),
    "tucker: an index of int32": lambda: tucker.contract(
        zeros(4, 6), zeros(2, 3), zeros(3, 6, 6), zeros(4, dtype=torch.int32), 0.0
    ),
    "tucker: a core of another width": lambda: tucker.contract(
        zeros(4, 6), zeros(4, 3), zeros(3, 5, 5), None, 0.0
    ),
    "[ENT]: a table of another width": lambda: mixed(segment(zeros(5, 7), whole(3, 2))),
    "[ENT]: places of fewer sequences": lambda: mixed(
        segment(zeros(5, 8), whole(3, 2)), segment(zeros(5, 8), whole(2, 2))
    ),
    "[ENT]: absence of fewer places": lambda: mixed(segment(zeros(5, 8), whole(3, 2), zeros(3, 1, dtype=NO))),
    "[ENT]: structure of fewer sequences": lambda: mixed(segment(zeros(5, 8), whole(3, 2)), segment(zeros(2, 8), None)),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_a_kernel_cannot_read_is_refused(what):
    with pytest.raises((ValueError, RuntimeError)):
        WRONG[what]()


def signatures() -> str:
    """What the C files define for others: names and arguments, without comments, names of arguments and blanks."""
    found = []
    for path in sorted(Path(kernels.__file__).parent.glob("*.c")):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.S)
        for kind, name, arguments in re.findall(r"^(?!static)(\w+) (\w+)\(([^)]*)\)\s*\{", text, flags=re.M):
            types = [re.sub(r"\b(restrict|const)\b|\w+\s*$|\s+", "", one.strip()) for one in arguments.split(",")]
            found.append(f"{kind} {name}({','.join(types)})")
    return "\n".join(found)


def test_a_library_of_other_signatures_is_known_by_its_newest_name():
    """ctypes passes whatever it is given, so a library that was built before a change would read what is not there."""
    assert f" {kernels.NEWEST}(" in signatures()
    seen = hashlib.sha256(signatures().encode()).hexdigest()[:12]
    assert (kernels.NEWEST, seen) == ("walker_losses", "8fefc4d33954"), (
        "a kernel's arguments changed: give the function a new name, make it NEWEST, and put both here"
    )


def test_an_older_library_is_not_used(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "NEWEST", "a_function_of_tomorrow")
    library.cache_clear()
    try:
        assert library() is None
        assert "built from older files" in caplog.text
    finally:
        monkeypatch.undo()
        library.cache_clear()
    assert library() is not None


def test_an_address_is_given_for_what_fits_only():
    rows = torch.arange(12.0).view(3, 4)
    assert address(rows, torch.float32, 3, 4).value == rows.data_ptr()
    for given, dtype, shape in (
        (rows.T, torch.float32, (4, 3)),
        (rows[:, :2], torch.float32, (3, 2)),
        (rows, torch.float64, (3, 4)),
        (rows, torch.float32, (12,)),
        (rows, torch.float32, (3, 5)),
    ):
        with pytest.raises(ValueError, match="kernel needs"):
            address(given, dtype, *shape)
