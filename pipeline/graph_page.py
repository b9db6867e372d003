"""The exact counts on a graph's page, data/<graph>/README.md: written by code from the audit, prose left alone."""

from collections.abc import Mapping

from pipeline.errors import UserError

BEGIN, END = "<!-- counts: written by `python -m stages.describe`, not by hand -->", "<!-- end of counts -->"


def counts(audit: Mapping, text: Mapping[str, int] | None = None) -> str:
    """Markdown tables of what the released files hold, of what is trained and measured on, and of the texts.

    `audit` is what audit.audit returned, `text` the counts of text.rows.
    """
    was, now = audit["released"], audit["used"]
    rows = [("entities, relations", f"{audit['entities']:,}, {audit['relations']:,}", "the same")]
    for split in ("train", "dev", "test"):
        rows.append((f"rows of {split}", f"{was['rows'][split]:,}", f"{now['rows'][split]:,}"))
        rows.append((f"distinct rows of {split}", f"{was['distinct'][split]:,}", f"{now['distinct'][split]:,}"))
    for one, other in (("dev", "train"), ("dev", "test"), ("test", "train")):
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
                ("label_only", "told by the name in their key alone"),
                ("with_text", "with a text that is encoded"),
            )
        ]
    return "\n".join(lines)


def update(page: str, tables: str) -> str:
    """The page with `tables` between its two marks. Raises UserError if the marks are not there, once each."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise UserError(f"The page has no place for its counts: put a line {BEGIN!r} and, below it, a line {END!r}.")
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{rest.split(END)[1]}"
