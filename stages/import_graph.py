"""Brings a graph of your own into the project: its triples, texts, pictures and features, from the files you have.

It says what it understood of each file, and writes data/<name>/source and configs/graphs/<name>.yaml, or nothing.
From Python: `pipeline.importing.graph.import_graph`, which takes DataFrames too.
docs/your-own-graph.md shows all of it.
"""

import argparse
from functools import partial
from pathlib import Path

from pipeline.download.sources import chosen_mirror
from pipeline.errors import UserError, counted
from pipeline.graph.vocabulary import SPLITS
from pipeline.importing.delimited import FIND_OUT, NAMES, Guess
from pipeline.importing.graph import Found, Imported, import_graph
from pipeline.importing.located import located
from pipeline.importing.public import PUBLIC, labels_in, public
from pipeline.modalities import MODALITIES
from pipeline.retry import RetryPolicy
from pipeline.wikimedia.labels import labels
from pipeline.wikimedia.store import WebStore
from stages.cli import arguments, stage
from stages.fetch import Bars, addresses, policy
from stages.params import PATH, load_params

WORK = Path("data/.work/import")


@stage
def main() -> None:
    args = _parser().parse_args()
    if not PATH.is_file():
        raise UserError(f"{PATH} is not there; run from the project's folder, into which the graph is brought.")
    guess = Guess(
        args.delimiter,
        None if args.header is None else args.header == "yes",
        tuple(args.columns.split(",")) if args.columns else None,
    )
    named = {one: getattr(args, one) for one in ("triples", "valid", "test", "texts", "labels", "relations")}
    if args.from_public is not None:
        named, guess = _public(args, named, guess)
    elif not args.triples or not args.name:
        raise UserError(
            "Say what the graph will be called and where its triples are: --name and --triples (or --from)."
        )
    if args.tokens < 0:
        raise UserError(f"--tokens {args.tokens} is no number of tokens: 0 (none) or more.")
    named |= {one: _located(args.name, named[one]) for one in ("triples", "valid", "test")}
    asked = [one for one in ("labels", "relations") if isinstance(named[one], str) and named[one] == "wikidata"]
    named |= {one: partial(_of_wikidata, args.name) for one in asked}
    imported = import_graph(
        args.name, named.pop("triples"), **named, pictures=args.pictures, features=args.features, order=args.order,
        modality=args.modality, tokens=args.tokens, guess=guess, replace=args.replace,
    )  # fmt: skip
    print("\n".join(told(args.name, imported)))


def _public(args: argparse.Namespace, named: dict, guess: Guess) -> tuple[dict, Guess]:
    """The files of a public graph, where nothing else is said."""
    args.name = args.name or args.from_public
    given = [one for one, value in named.items() if value is not None]  # and need not be fetched
    found = public(args.from_public, WORK / "public", without=given, **_fetching())
    print(f"{args.from_public}: {PUBLIC[args.from_public].source}")
    own = {one: [path] if one in ("triples", "valid", "test") else path for one, path in found.items()}
    about = PUBLIC[args.from_public]
    if about.label_before and "texts" in found:
        own["labels"] = labels_in(found["texts"], about.label_before)
    guess = guess if guess != FIND_OUT or args.triples else about.guess  # of the user's own files nothing is known
    return {one: own.get(one) if given is None else given for one, given in named.items()}, guess


def _located(name: str, given: list | None) -> list | None:
    """Files of triples; what is an address or lies in an archive is brought here first."""
    if given is None:
        return None
    remote = any(str(one).startswith(("http://", "https://")) for one in given)
    return [located(one, WORK / name, **(_fetching() if remote else {})) for one in given]


def _of_wikidata(name: str, ids: list[str]) -> dict[str, str]:
    """Labels of ids; the answers are kept where the stages look for those of the graph's texts."""
    params = load_params()
    with WebStore(Path("data") / ".work" / name / "web.sqlite") as store, Bars(name) as bars:
        return labels(ids, store, policy(params), addresses(params), bars)


def _fetching() -> dict:
    sources = load_params().sources
    return {"mirror": chosen_mirror(sources.mirror), "retry": RetryPolicy(sources.timeout, sources.retries)}


def _parser() -> argparse.ArgumentParser:
    parser = arguments(__doc__ or "")
    parser.add_argument("--name", help="what the graph will be called (with --from: as it is called there)")
    parser.add_argument("--triples", nargs="+", metavar="FILE",
                        help="TSV, CSV, Parquet, N-Triples, Turtle, OpenKE's folder, a zip or an address")  # fmt: skip
    parser.add_argument("--from", dest="from_public", metavar="GRAPH", help=f"a public graph: {', '.join(PUBLIC)}")
    parser.add_argument("--valid", nargs="+", metavar="FILE", help="validation triples; left out: carved out")
    parser.add_argument("--test", nargs="+", metavar="FILE", help="test triples; left out: carved out")
    parser.add_argument("--texts", metavar="FILE", help="a table of key, label, description, aliases; or: wikidata")
    parser.add_argument("--labels", metavar="FILE",
                        help="a table of key and label of entities, beside --texts; or: wikidata")  # fmt: skip
    parser.add_argument("--relations", metavar="FILE", help="a table of key and label of relations; or: wikidata")
    parser.add_argument("--pictures", metavar="FOLDER", help="a folder, zip or tar of <entity>/<file>; or: commons")
    parser.add_argument("--features", metavar="FILE", help=".npz, .parquet, .pth, .h5 with keys, or .npy with --order")
    parser.add_argument("--order", metavar="FILE", help="the keys of the features, one a line, where they have none")
    parser.add_argument(
        "--modality", choices=list(MODALITIES), default="image", help="what the features are of (image)"
    )
    parser.add_argument("--tokens", type=int, default=0, metavar="N",
                        help="make N tokens of each vector, for models that read tokens (0: none)")  # fmt: skip
    parser.add_argument("--delimiter", help=f"what parts the fields: a character, or {', '.join(NAMES)}")
    parser.add_argument("--header", choices=("yes", "no"), help="whether the first line names the columns")
    parser.add_argument("--columns", help="what the columns are, such as head,tail,relation")
    parser.add_argument("--replace", action="store_true", help="replace what was imported under this name before")
    return parser


def told(name: str, imported: Imported) -> list[str]:
    """What is printed: what was understood, what matched, the splits, warnings, and what to do next."""
    rows = imported.audit["used"]["rows"]
    table = [("entities", imported.entities), ("relations", imported.relations)]
    table += [(f"triples of {split}", rows[split]) for split in SPLITS]
    lines = [*imported.notes, "", f"{'':30}{name:>10}"]
    lines += [f"{what:30}{number:>10,}" for what, number in table]
    for what, found in imported.matched.items():
        share = found.entities / imported.entities
        lines.append(f"{'entities with ' + what:30}{found.entities:>10,}  {share:.1%}")
    for what, found in imported.matched.items():
        lines += _strangers(what, found)
    lines += ["", *_warnings(imported.audit)]
    lines += [
        f"Written: {imported.source}, {imported.config}",
        f"Next: put `- {name}` under `graphs` in params.yaml, then `dvc repro` (or first `dvc repro ingest@{name}`).",
    ]
    return lines


def _strangers(what: str, found: Found) -> list[str]:
    lines = []
    if found.unmatched:
        lines.append(f"{what}: {counted(found.unmatched, 'name')} without an entity, such as")
        lines += [
            f"    {name[:60]!r}"
            + (f"; the nearest entity is {near[:60]!r}" if near else "" if near == "" else "; no entity is like it")
            for name, near in found.strangers
        ]
    if found.ambiguous:
        lines.append(f"{what}: {counted(found.ambiguous, 'name')} could mean several entities and were left out.")
    return lines


def _warnings(audit: dict) -> list[str]:
    """What the audit finds fault with, a sentence each."""
    was = audit["released"]
    said = [
        f"{counted(number, 'row')} of {key.replace('_in_', ' stands in ' if number == 1 else ' stand in ')}"
        for key, number in was["overlaps"].items() if number
    ]  # fmt: skip
    said += [
        f"{counted(number, 'row')} of {split} {'repeats' if number == 1 else 'repeat'} another"
        for split, number in was["duplicates"].items()
        if number
    ]
    unseen = was["unseen"]
    said += [f"{counted(unseen['entities'], 'entity', 'entities')} in no triple of train"] if unseen["entities"] else []
    said += [
        f"{one['relation']} is {kind} of {one['other']} ({one['share']:.0%} of its facts)"
        for kind in ("reverse", "duplicate") for one in was["similar_relations"][kind] if "other" in one
    ]  # fmt: skip
    return [f"Warning: {one}." for one in said]


if __name__ == "__main__":
    main()
