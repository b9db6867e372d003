"""What the report says in tables: results beside published figures, coverage, where each model wins, what it cost."""

import csv
import tomllib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.graph import CATEGORIES
from stages.report_inputs import Graph, Run
from trainers import ranking

HERE = Path(__file__).parent
SIDES = ("both complete", "known lacks", "answer lacks", "both lack")
FEW = 20  # a cell with fewer queries than this shows no figure: its MRR would be chance
MEASURES = ("mrr", "hits_at_1", "hits_at_3", "hits_at_10")
DISPLAY = {
    "adamf": "AdaMF",
    "adamf_mat": "AdaMF-MAT",
    "momok": "MoMoK",
    "mygo": "MyGO",
    "transe": "TransE",
    "distmult": "DistMult",
    "complex": "ComplEx",
    "rotate": "RotatE",
    "tucker": "TuckER",
}


def display(model: str) -> str:
    """A model's name as its paper writes it."""
    return DISPLAY.get(model, model)


def plain(name: str) -> str:
    """A name for comparing: AdaMF-MAT, adamf_mat and ADAMF-MAT are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@cache
def published() -> tuple[dict, ...]:
    """The rows of published.csv: figures in percent as printed, None where not printed."""
    with open(HERE / "published.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    for row in rows:
        row.update({name: float(row[name]) if row[name] else None for name in MEASURES})
    return tuple(rows)


@cache
def protocols() -> dict[str, dict]:
    """How the reference code of a model measures, by plain name."""
    with open(HERE / "protocols.csv", encoding="utf-8", newline="") as handle:
        return {plain(row["model"]): row for row in csv.DictReader(handle)}


def find_published(graph: str, model: str) -> dict | None:
    """The published row of a model on a graph, if there is one."""
    wanted = (plain(graph), plain(model))
    return next((row for row in published() if (plain(row["graph"]), plain(row["model"])) == wanted), None)


def why_not_comparable(run: Run, audit_says: str) -> list[str]:
    """The reasons for which the published figure of this run's model is not comparable with it.

    `audit_says` is what the audit found wrong with the released dev rows, empty if nothing.
    """
    protocol = protocols().get(plain(run.model))
    reasons = []
    if run.about.get("split") == "clean" and audit_says:
        reasons.append(f"Split: papers use the released files ({audit_says}); here dev is carved out of train.")
    if protocol is None:
        reasons.append("Protocol: the source prints the figure without the choice of epoch or the treatment of ties.")
        return reasons
    if protocol["encoders"]:
        reasons.append(f"Encoders: the paper's are {protocol['encoders']}; here {encoders(run)}.")
    if protocol["epoch_chosen"]:
        reasons.append(f"Choice: in the reference code {protocol['epoch_chosen']}; here dev chooses.")
    if protocol["ties"]:
        reasons.append(f"Ties: in the reference code {protocol['ties']}; here a tie counts half.")
    epochs = run.about.get("epochs")
    if protocol["epochs"] and epochs and epochs < int(protocol["epochs"]):
        reasons.append(f"Training: the reference trains {protocol['epochs']} epochs; this run of {display(run.model)} {epochs}.")
    return reasons


def encoders(run: Run) -> str:
    """The encoders of a run in words."""
    named = run.about.get("encoders") or {}
    return ", ".join(f"{modality} by {_encoder(value)}" for modality, value in sorted(named.items())) or "none"


def _encoder(made_by: object) -> str:
    """The name in what a table says of its encoder: the first of these keys that it has."""
    while isinstance(made_by, dict):
        made_by = next((made_by[key] for key in ("encoder", "name", "family", "model") if made_by.get(key)), "unnamed")
    return str(made_by)


def results(runs: Sequence[Run], audit_says: str) -> dict:
    """The results table of one graph: rows with figures, intervals and published figures, and the lettered reasons."""
    letters: dict[str, str] = {}
    rows = []
    for place, run in enumerate(runs):
        found = find_published(run.graph, run.model)
        reasons = why_not_comparable(run, audit_says) if found else []
        marks = [letters.setdefault(reason, chr(ord("a") + len(letters))) for reason in reasons]
        low, high = interval(run)
        rows.append(
            {"run": run, "label": display(run.model), "place": place, "published": found, "marks": marks,
             "mrr": run.test["mrr"], "low": low, "high": high}
        )  # fmt: skip
    shown = {plain(run.model) for run in runs}
    others = [row for row in published() if plain(row["graph"]) == plain(runs[0].graph) and plain(row["model"]) not in shown]
    return {"rows": rows, "reasons": {letter: reason for reason, letter in letters.items()}, "others": others}


def interval(run: Run, draws: int = 1000, seed: int = 0) -> tuple[float, float]:
    """The 95 % bootstrap interval of the test MRR: percentiles over resampled triples, both directions together."""
    reciprocal = per_triple(run)
    generator = np.random.default_rng(seed)
    rows = len(reciprocal)
    means = [reciprocal[generator.integers(0, rows, rows)].mean() for _ in range(draws)]
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def per_triple(run: Run) -> np.ndarray:
    """(n,) mean reciprocal rank of each test triple: its two queries are not independent, so they stay together."""
    keys = np.stack([run.ranks[name] for name in ("head", "relation", "tail")], axis=1)
    _, of = np.unique(keys, axis=0, return_inverse=True)
    return np.bincount(of.ravel(), 1 / run.ranks["realistic"]) / np.bincount(of.ravel())


def coverage(graph: Graph) -> list[tuple[str, dict[str, float]]]:
    """Shares of entities by what they have: of all, of those in train, of those in test, of those unseen in train."""
    ends = graph.triples[:, [0, 2]]
    seen = {which: np.isin(np.arange(len(graph.labels)), ends[graph.split == which]) for which in ("train", "test")}
    groups = {
        "all": np.ones(len(graph.labels), dtype=bool),
        "in train": seen["train"],
        "in test": seen["test"],
        "in test only": seen["test"] & ~seen["train"],
    }
    bars = []
    for label, who in groups.items():
        if who.any():
            text, picture = graph.has_text[who], graph.has_picture[who]
            shares = (text & picture, text & ~picture, ~text & picture, ~text & ~picture)
            names = ("text and picture", "text only", "picture only", "neither")
            bars.append((f"{label} ({who.sum():,})", {n: float(s.mean()) for n, s in zip(names, shares, strict=True)}))
    return bars


def reasons_of_missing(graph: Graph) -> list[dict]:
    """The statuses of texts and pictures with how many entities have each."""
    total = len(graph.labels)
    return [
        {"what": what, "status": status, "entities": count, "share": count / total}
        for what, counts in (("text", graph.text_status), ("picture", graph.picture_status))
        for status, count in sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    ]


def _groups(graph: Graph, run: Run) -> dict[str, tuple[str, np.ndarray]]:
    """Masks over the test queries: by whether the known entity and the answer have a text and a picture."""
    tail = run.ranks["direction"] == "tail"
    known = np.where(tail, run.ranks["head"], run.ranks["tail"])
    answer = np.where(tail, run.ranks["tail"], run.ranks["head"])
    complete = graph.has_text & graph.has_picture
    known, answer = complete[known], complete[answer]
    return dict(zip(SIDES, (known & answer, ~known & answer, known & ~answer, ~known & ~answer), strict=True))


def wins(graph: Graph, runs: Sequence[Run]) -> dict:
    """Test MRR of each model by relation category × coverage, and who is best in each cell by how much."""
    asked = set(graph.categories[graph.triples[graph.split == "test", 1]])
    rows, columns = (*(one for one in CATEGORIES if one in asked), "all"), (*SIDES, "all")
    cells = np.full((len(runs), len(rows), len(columns)), np.nan)
    queries = np.zeros(cells.shape[1:], dtype=int)
    for place, run in enumerate(runs):
        category = graph.categories[run.ranks["relation"]]
        groups = {**_groups(graph, run), "all": np.ones(len(category), dtype=bool)}
        for y, row in enumerate(rows):
            for x, column in enumerate(columns):
                mask = groups[column] if row == "all" else groups[column] & (category == row)
                queries[y, x] = mask.sum()
                if queries[y, x] >= FEW:
                    part = ranking.summary(run.ranks["realistic"][mask], run.ranks["candidates"][mask])
                    cells[place, y, x] = part["mrr"]
    return {"rows": rows, "columns": columns, "cells": cells, "queries": queries, "best": _best(cells)}


def _best(cells: np.ndarray) -> list[list[tuple[int, float] | None]]:
    """(place of the best model, lead over the second) in each cell; None where there are too few queries."""
    table = []
    for y in range(cells.shape[1]):
        line: list[tuple[int, float] | None] = []
        for x in range(cells.shape[2]):
            order = np.argsort(-cells[:, y, x], kind="stable")
            if np.isfinite(cells[:, y, x]).all() and len(order) > 1:
                line.append((int(order[0]), float(cells[order[0], y, x] - cells[order[1], y, x])))
            else:
                line.append(None)
        table.append(line)
    return table


def by_modality(graph: Graph, runs: Sequence[Run]) -> list[dict]:
    """Test MRR by whether the known entity, and the answer, has a text, has a picture."""
    table = []
    for end in ("known entity", "answer"):
        for what, has in (("text", graph.has_text), ("picture", graph.has_picture)):
            for present in (True, False):
                row = {"group": f"{end} {'has' if present else 'lacks'} a {what}", "mrr": []}
                for run in runs:
                    tail = run.ranks["direction"] == "tail"
                    side = tail if end == "known entity" else ~tail
                    mask = has[np.where(side, run.ranks["head"], run.ranks["tail"])] == present
                    row["queries"] = int(mask.sum())
                    fair = mask.sum() >= FEW
                    row["mrr"].append(float((1 / run.ranks["realistic"][mask]).mean()) if fair else None)
                table.append(row)
    return table


def citations(graphs: Sequence[str], runs: Sequence[Run]) -> list[dict]:
    """The references owed for these graphs, models and encoders, as entries with their BibTeX."""
    with open(HERE / "citations.toml", "rb") as handle:
        entries = tomllib.load(handle)
    names = {f"graph:{plain(graph)}" for graph in graphs} | {f"model:{plain(run.model)}" for run in runs} | {"always"}
    used = {plain(word) for run in runs for word in _words(run.about.get("encoders"))}
    chosen = []
    for key, entry in entries.items():
        prefixes = [use.removeprefix("encoder:") for use in entry["used_by"] if use.startswith("encoder:")]
        if names & set(entry["used_by"]) or any(prefix in name for name in used for prefix in prefixes):
            where = entry.get("booktitle") or entry.get("journal", "")
            chosen.append({"key": key, **entry, "where": where, "bibtex": bibtex(key, entry)})
    return chosen


def _words(value: object) -> list[str]:
    """All strings within what the tables say of their encoders: a name may stand in any of them."""
    if isinstance(value, dict):
        return [word for key, part in value.items() if "sha256" not in key for word in _words(part)]
    return [value] if isinstance(value, str) else []


def bibtex(key: str, entry: dict) -> str:
    """One entry of citations.toml as BibTeX."""
    fields = {name: value for name, value in entry.items() if name not in ("used_by", "type")}
    if "eprint" in fields:
        fields["archivePrefix"] = "arXiv"
    width = max(map(len, fields))
    lines = ",\n".join(f"  {name:<{width}} = {{{value}}}" for name, value in fields.items())
    return f"@{entry['type']}{{{key},\n{lines}\n}}"
