"""What the report says in tables: results beside published figures, coverage, where each model wins, what it cost."""

import csv
import re
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from pipeline.modalities import MODALITIES
from pipeline.modalities.coverage import Coverage
from pipeline.modalities.coverage import coverage as coverage_of
from stages.report import verdict
from stages.report.content import (
    Cell,
    Citation,
    Column,
    Completed,
    GroupRow,
    Lead,
    Measured,
    Missing,
    MissingFact,
    Published,
    Result,
    Results,
    Wins,
)
from stages.report.inputs import Graph, Run
from trainers.about import about_model
from trainers.evaluation import breakdown, significance
from trainers.evaluation.metrics import METRICS, MRR, Metric, headline, in_report, per_query
from trainers.evaluation.protocols import protocol_metrics
from trainers.training.runs import comparable_dev_mrr

HERE = Path(__file__).parent
ENDS = {"known": "known entity", "answer": "answer"}
FEW = 20  # a cell with fewer queries than this shows no figure: its MRR would be chance
OUTCOMES = {
    "found": "found, with a description",
    "no_description": "found, without a description",
    "label_only": "only the graph's own name",
    "absent": "nothing found",
    "ok": "there",
    "no row": "not looked for",
}


def display(model: str) -> str:
    """A model's name as its paper writes it."""
    return about_model(model).name


def plain(name: str) -> str:
    """A name for comparing: AdaMF-MAT, adamf_mat and ADAMF-MAT are one."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


@cache
def published() -> tuple[Published, ...]:
    """The rows of published.csv."""
    with open(HERE / "published.csv", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    found = []
    for row in rows:
        model, graph, printed_in = (row.pop(name) for name in ("model", "graph", "printed_in"))
        figures = {name: float(figure) if figure else None for name, figure in row.items()}
        found.append(Published(model, graph, printed_in, figures))
    return tuple(found)


def find_published(graph: str, model: str) -> Published | None:
    """The published row of a model on a graph, if there is one."""
    wanted = (plain(graph), plain(model))
    return next((row for row in published() if (plain(row.graph), plain(row.model)) == wanted), None)


def why_not_comparable(run: Run, audit_says: str) -> list[str]:
    """The reasons for which the published figure of this run's model is not comparable with it.

    `audit_says` is what the audit found wrong with the released dev rows, empty if nothing.
    """
    reasons = []
    if run.about.get("split") == "clean" and audit_says:
        reasons.append(f"Split: papers use the released files ({audit_says}); here dev is carved out of train.")
    protocol = about_model(run.model).protocol
    if protocol is None:
        reasons.append(
            "Protocol: the source prints the figure and says neither how the epoch is chosen nor how ties are counted; "
            "here dev chooses, and a tie counts half."
        )
        return reasons
    reasons.append(f"Encoders: the paper has {protocol.encoders}; here {encoders(run)}.")
    theirs = protocol_metrics(protocol, run.ranks)[MRR.name]
    epochs = run.about["epochs"]
    text = f"Protocol: the reference code of {display(run.model)} measures thus: {protocol.words}."
    if round(theirs, 4) != round(run.test[MRR.name], 4):
        text += f" With its ties alone, this run's MRR would be {100 * theirs:.2f}."
    if epochs < protocol.epochs:
        text += f" It trains {protocol.epochs} epochs; this run took {epochs}."
    reasons.append(text)
    return reasons


def encoders(run: Run) -> str:
    """The encoders of a run in words."""
    named = run.about.get("encoders") or {}
    return ", ".join(f"{modality} by {_encoder(value)}" for modality, value in sorted(named.items())) or "none"


def _encoder(provenance: object) -> str:
    """The name in what a table says of its encoder: the first of these keys that it has."""
    found = provenance
    while isinstance(found, dict):
        found = next((found[key] for key in ("encoder", "name", "family", "model") if found.get(key)), "unnamed")
    return str(found)


def results(graph: Graph, runs: Sequence[Run], audit_says: str) -> Results:
    """The results of one graph's runs; `audit_says` as for `why_not_comparable`."""
    letters: dict[str, str] = {}
    against, winners = verdict.differences(runs), verdict.clear_winners(runs)
    rows = [
        _result(place, run, audit_says, letters, against[place], [name for name in winners if winners[name] == place])
        for place, run in enumerate(runs)
    ]
    shown = {plain(run.model) for run in runs}
    here = [row for row in published() if plain(row.graph) == plain(runs[0].graph)]
    printed = [name for name in headline() if any(row.figures.get(name) is not None for row in published())]
    others = [
        (row, [_printed(row.figures.get(name)) for name in printed]) for row in here if plain(row.model) not in shown
    ]
    names = {run.model: display(run.model) for run in runs}
    return Results(
        sentence=verdict.sentence(runs, names, _all_encoders(runs), against),
        facts=facts(graph, runs),
        headings=[*(metric.heading for metric in in_report()), f"dev {MRR.heading}"],
        rows=sorted(rows, key=lambda row: -row.mrr),
        reasons=[(letter, reason) for reason, letter in letters.items()],
        published_headings=[METRICS[name].heading for name in printed],
        others=others,
    )


def facts(graph: Graph, runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What a reader asks next of one graph's runs: terms, and what they are."""
    abouts = [run.about for run in runs]
    devices = sorted({about["device"] for about in abouts})
    days = sorted({about["date"] for about in abouts if about.get("date")})
    minutes = sum(run.seconds for run in runs) / 60
    shares = ", ".join(f"{one.label} {100 * one.has.mean():.0f} %" for one in graph.covered.values())
    found = [
        ("Split", _split_in_words(abouts[0].get("split", ""))),
        ("Encoders", _all_encoders(runs)),
        ("Entities covered", shares),
        ("Seeds", f"{verdict.seeds(runs)}: the intervals speak of other queries, not of another training"),
        ("Trained", f"{minutes:.0f} min in all on {', '.join(devices)}{', ' + ' to '.join(days) if days else ''}"),
    ]
    with_paper = [display(run.model) for run in runs if find_published(run.graph, run.model)]
    if with_paper:
        found.append(("Repeats a paper?", f"No figure of {', '.join(with_paper)} is meant to: the letters say why not"))
    return found


def _split_in_words(split: str) -> str:
    words = {"clean": "clean: dev shares no row with train or test", "released": "released: the published files"}
    return words.get(split, split)


def _all_encoders(runs: Sequence[Run]) -> str:
    """The encoders of all runs that have any, each once."""
    named = dict.fromkeys(encoders(run) for run in runs if run.about.get("encoders"))
    return " / ".join(named) or "no encoders"


def _result(
    place: int, run: Run, audit_says: str, letters: dict[str, str], against: verdict.Difference | None, wins: list[str]
) -> Result:
    """One row. Reasons that `letters` lacks are given the next letter there."""
    found = find_published(run.graph, run.model)
    reasons = why_not_comparable(run, audit_says) if found else []
    marks = [letters.setdefault(reason, chr(ord("a") + len(letters))) for reason in reasons]
    intervals = run.test.get("intervals") or significance.intervals(run.ranks)
    measured = _measured(run.test.get("reference_protocol"))
    cells = []
    for metric in in_report():
        theirs = found.figures.get(metric.name) if found else None
        cells.append(
            Cell(
                metric=metric.name,
                heading=metric.heading,
                text=metric.text(run.test[metric.name]),
                clear=metric.name in wins,
                interval=_interval(intervals.get(metric.name)),
                as_the_paper=_as_the_paper(measured, metric),
                published="" if theirs is None else _printed(theirs),
            )
        )
    cells.append(Cell("dev_mrr", f"dev {MRR.heading}", MRR.text(comparable_dev_mrr(run.about, run.dev[MRR.name]))))
    low, high = intervals[MRR.name]
    label = display(run.model)
    return Result(run, label, place, run.test[MRR.name], low, high, cells, found, marks, measured, against)


def _interval(bounds: Sequence[float] | None) -> str:
    return "" if bounds is None else f"[{100 * bounds[0]:.1f}, {100 * bounds[1]:.1f}]"


def _as_the_paper(measured: Measured | None, metric: Metric) -> str:
    if measured is None or metric.shown != "headline" or metric.name not in measured.reported:
        return ""
    return f"as {display(measured.name)} measures {metric.text(measured.reported[metric.name])}"


def _printed(figure: float | None) -> str:
    return "–" if figure is None else f"{figure:.2f}"


def _measured(found: dict | None) -> Measured | None:
    """What test.json says of a reference protocol; None where it says nothing, or the protocol never looked."""
    if not found or not found.get("reported"):
        return None
    reported = {name: one["value"] for name, one in found["reported"].items()}
    return Measured(found["name"], found["words"], reported)


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
    sets = coverage_of({one.label: one.has for one in graph.covered.values()})
    return [
        (
            f"{label} ({who.sum():,})",
            {sets.names[one]: float((sets.of[who] == one).mean()) for one in sets.largest_first},
        )
        for label, who in groups.items()
        if who.any()
    ]


def reasons_of_missing(graph: Graph) -> list[Missing]:
    """The statuses of each modality with how many entities have each."""
    total = len(graph.labels)
    return [
        Missing(one.label, graph.in_its_words(OUTCOMES.get(status, status)), count, count / total)
        for one in graph.covered.values()
        for status, count in sorted(one.status.items(), key=lambda item: (-item[1], str(item[0])))
    ]


def groups(graph: Graph, run: Run) -> dict[str, breakdown.Groups]:
    """The ways of grouping this run's test queries, by name."""
    facts = breakdown.read_facts(graph.folder / "graph", graph.folder / "encoded")
    return {one.name: one for one in breakdown.groups(run.ranks, facts)}


def wins(graph: Graph, runs: Sequence[Run]) -> list[Wins]:
    """Test MRR of each model by relation category × coverage, for the known entity and for the answer.

    Empty where a modality was not encoded.
    """
    aligned = [in_order(run.ranks) for run in runs]
    runs = [replace(run, ranks=ranks) for run, ranks in zip(runs, aligned, strict=True)]
    by = groups(graph, runs[0])
    reciprocal = np.stack([per_query(run.ranks["realistic"], MRR.name) for run in runs])
    return [
        _wins(by["relation_category"], by[f"{end}_coverage"], reciprocal, end, graph)
        for end in ENDS
        if f"{end}_coverage" in by
    ]


def in_order(ranks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows in an order that all runs share, so that row i is the same query in each."""
    order = np.lexsort([ranks[name] for name in ("realistic", "tail", "relation", "head", "direction")])
    return {name: column[order] for name, column in ranks.items()}


def _wins(
    category: breakdown.Groups, coverage: breakdown.Groups, reciprocal: np.ndarray, end: str, graph: Graph
) -> Wins:
    asked = [value for code, value in enumerate(category.values) if (category.codes == code).any()]
    rows, values = (*asked, "all"), (*coverage.values, "all")
    encoded = [graph.covered[name].label for name in graph.encoded]
    short = Coverage(tuple(encoded), np.zeros(0, dtype=np.int64)).short
    columns = (*map(Column, map(graph.in_its_words, coverage.values), short), Column("all", "all"))
    cells = np.full((len(reciprocal), len(rows), len(columns)), np.nan)
    queries = np.zeros(cells.shape[1:], dtype=int)
    best: list[list[Lead | None]] = [[None] * len(columns) for _ in rows]
    for y, row in enumerate(rows):
        for x, column in enumerate(values):
            mask = np.ones(len(category.codes), dtype=bool)
            mask &= row == "all" or category.codes == category.values.index(row)
            mask &= column == "all" or coverage.codes == coverage.values.index(column)
            queries[y, x] = mask.sum()
            if queries[y, x] >= FEW:
                cells[:, y, x] = reciprocal[:, mask].mean(axis=1)
                best[y][x] = _best(reciprocal[:, mask]) if len(reciprocal) > 1 else None
    return Wins(end, rows, columns, cells, queries, best)


def _best(reciprocal: np.ndarray) -> Lead:
    """The best of the models (models, n), its lead over the second, and whether a paired bootstrap bears it out."""
    first, second = np.argsort(-reciprocal.mean(axis=1), kind="stable")[:2]
    difference = reciprocal[first] - reciprocal[second]
    low, _ = significance.percentile_interval(significance.bootstrap_means(difference, samples=500))
    return Lead(int(first), float(difference.mean()), bool(low[0, 0] > 0))


def group_names() -> dict[str, str]:
    """The groups that the page shows, by the breakdown's name, in words."""
    covered = {
        f"{end}_{modality.label}": f"{words}'s {modality.label}"
        for end, words in ENDS.items()
        for modality in MODALITIES.values()
    }
    return {"unseen": "seen in train", **covered, "answer_degree": "answer's train triples"}


def completed(runs: Sequence[Run], most: int = 8) -> list[Completed]:
    """What `complete` found for each run that it was run for, with the `most` probable facts."""
    found = []
    for run in runs:
        if not run.completed:
            continue
        trial = run.completed["test_as_if_unknown"]
        sides = run.completed["calibrated_on_dev"]
        best = [MissingFact(row["head_label"], row["relation_label"], row["tail_label"], row["probability"])
                for row in run.completions[:most]]  # fmt: skip
        errors = {side: one["expected_calibration_error"] for side, one in sides.items()}
        found.append(Completed(run.model, run.completed["completions"], errors, trial["chosen"], trial["of_test"],
                               trial["precision"], best))  # fmt: skip
    return found


def by_group(graph: Graph, runs: Sequence[Run]) -> list[GroupRow]:
    """Test MRR of each model by direction and by each group of `group_names`."""
    names = group_names()
    table: dict[tuple[str, str], GroupRow] = {}
    for place, run in enumerate(runs):
        by = groups(graph, run)
        wanted = [by[name] for name in names if name in by]
        if graph.broken:
            wanted.append(_touches(graph, run))
        found = breakdown.table(run.ranks, [by["all"], *wanted], samples=1)
        for row in found.select(["group", "value", "direction", "queries", MRR.name]).to_pylist():
            if row["direction"] == breakdown.BOTH or row["group"] == "all":
                what = "direction" if row["group"] == "all" else names.get(row["group"], row["group"])
                value = {"tail": "tail asked", "head": "head asked"}.get(row["direction"], row["value"])
                what, value = map(graph.in_its_words, (what, value))
                line = table.setdefault((what, value), GroupRow(what, value, row["queries"], [None] * len(runs)))
                line.mrr[place] = row[MRR.name] if row["queries"] >= FEW else None
    return list(table.values())


def _touches(graph: Graph, run: Run) -> breakdown.Groups:
    """Queries whose head or tail is two things under one name, and all others."""
    broken = np.isin(np.stack([run.ranks["head"], run.ranks["tail"]]), list(graph.broken)).any(axis=0)
    codes = np.asarray(broken, dtype=np.int64)
    return breakdown.Groups("two things under one name", ("neither end", "head or tail"), codes)


def citations(graphs: Sequence[str], runs: Sequence[Run]) -> list[Citation]:
    """The references owed for these graphs, models and encoders, as entries with their BibTeX."""
    with open(HERE / "citations.toml", "rb") as handle:
        entries = tomllib.load(handle)
    names = {f"graph:{plain(graph)}" for graph in graphs} | {"always"}
    papers = {paper for run in runs for paper in about_model(run.model).papers}
    used = {plain(word) for run in runs for word in _words(run.about.get("encoders"))}
    chosen = []
    for key, entry in entries.items():
        patterns = [use.removeprefix("encoder:") for use in entry.get("used_by", ()) if use.startswith("encoder:")]
        named = key in papers or names & set(entry.get("used_by", ()))
        if named or any(re.search(pattern, name) for name in used for pattern in patterns):
            where = entry.get("booktitle") or entry.get("journal", "")
            told = (entry["title"], entry["author"], where, entry["year"], entry.get("eprint", ""))
            chosen.append(Citation(key, *told, bibtex(key, entry)))
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
