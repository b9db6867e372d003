"""The exact counts on a graph's page, data/<graph>/README.md: written by code from the audit, prose left alone."""

from collections.abc import Mapping

from pipeline.errors import UserError
from pipeline.graph.vocabulary import OVERLAPS, SPLITS

BEGIN, END = "<!-- counts: written by `python -m stages.describe`, not by hand -->", "<!-- end of counts -->"


def counts(audit: Mapping, text: Mapping[str, int] | None = None, images: Mapping | None = None) -> str:
    """Markdown tables of what the released files hold, of what is trained and measured on, of texts and of pictures.

    `audit` is what audit.audit returned, `text` the counts of text.rows, `images` what stands in images.json.
    """
    was, now = audit["released"], audit["used"]
    rows: list[tuple[str, ...]] = [
        ("entities, relations", f"{audit['entities']:,}, {audit['relations']:,}", "the same")
    ]
    for split in SPLITS:
        rows.append((f"rows of {split}", f"{was['rows'][split]:,}", f"{now['rows'][split]:,}"))
        rows.append((f"distinct rows of {split}", f"{was['distinct'][split]:,}", f"{now['distinct'][split]:,}"))
    for one, other in OVERLAPS:
        key = f"{one}_in_{other}"
        rows.append((f"rows of {one} that stand in {other}", f"{was['overlaps'][key]:,}", f"{now['overlaps'][key]:,}"))
    for key, words in (
        ("entities", "entities unseen in train"),
        ("relations", "relations unseen in train"),
        ("dev_with_unseen_entity", "dev triples with an unseen entity"),
        ("test_with_unseen_entity", "test triples with an unseen entity"),
        ("test_with_unseen_relation", "test triples with an unseen relation"),
    ):
        rows.append((words, f"{was['unseen'][key]:,}", f"{now['unseen'][key]:,}"))
    for key, words in (("joined_in_train", "as they stand"), ("joined_in_train_reversed", "turned round")):
        pairs = (f"{measured['test_pairs'][key]:,}" for measured in (was, now))
        rows.append((f"test triples whose two entities train joins by any relation, {words}", *pairs))
    lines = [f"| | released files | in use (`split: {audit['split']}`) |", "|---|---:|---:|"]
    lines += [f"| {what} | {before} | {after} |" for what, before, after in rows]
    if text:
        lines += ["", "| text | entities |", "|---|---:|"]
        lines += [
            f"| {words} | {text[key]:,} |"
            for key, words in (
                ("found", "found"),
                ("with_description", "with a description"),
                ("with_aliases", "with aliases"),
                ("label_only", "known only by the name in their key"),
                ("with_text", "with a text that is encoded"),
            )
        ]
        lines.append(f"| source | {text['source']} |")
    return "\n".join(lines + (_pictures(images) if images else []))


_SOURCES = {
    "drawings": "drawn by code from the training facts; no photographs",
    "folder": "a folder or archive of your own",
    "commons": "Wikimedia Commons, by Wikidata's P18",
    "none": "none",
}


def _pictures(images: Mapping) -> list[str]:
    """The tables of the pictures: coverage, source, days, why there is none, and under which licences they stand."""
    lines = ["", "| pictures | |", "|---|---:|", f"| source | {_SOURCES[images['source']]} |"]
    lines += [
        f"| {words} | {images[key]:,} |"
        for key, words in (
            ("with_picture", "entities with a picture"),
            ("with_several", "entities with several"),
            ("without_picture", "entities without one"),
            ("pictures", "pictures"),
        )
    ]
    lines.append(f"| coverage | {images['coverage']:.2%} |")
    if web := images.get("web"):
        lines.append(f"| asked from, to | {web['asked_from']}, {web['asked_to']} |")
        lines.append(f"| entities that Wikidata knows | {web['known_to_wikidata']:,} |")
    if names := images.get("names"):
        lines += [f"| names {word} | {names[word]:,} |" for word in ("matched", "unmatched", "ambiguous")]
    if images["reasons"]:
        lines += ["", "| without a picture, because | rows |", "|---|---:|"]
        lines += [f"| {_cell(one['reason'])} | {one['rows']:,} |" for one in images["reasons"]]
    if images["licences"]:
        lines += ["", "| licence (author and source stand in each row) | pictures |", "|---|---:|"]
        lines += [f"| {_cell(one['licence'])} | {one['pictures']:,} |" for one in images["licences"]]
        without = images["pictures"] - sum(one["pictures"] for one in images["licences"])
        lines += [f"| unknown | {without:,} |"] if without else []
    return lines


def _cell(words: str) -> str:
    return words.replace("|", "\\|").replace("\n", " ")


def update(page: str, tables: str) -> str:
    """The page with `tables` between its two marks; a page without marks gets them at its end.

    Raises UserError if a mark stands there twice, alone, or in the wrong order.
    """
    if BEGIN not in page and END not in page:
        page = f"{page.rstrip()}\n\n## Counts\n\n{BEGIN}\n\n{END}\n"
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"The page has no place for its counts: put a line {BEGIN!r} and, below it, a line {END!r}.")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"
