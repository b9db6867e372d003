"""Words that carry grammar rather than meaning, per language, in lower case: articles, pronouns, prepositions, …

English: the closed word classes, with the forms of be, have, do and the modal verbs, and their contractions.
"""

import re

ENGLISH = frozenset(
    """
    a an the this that these those such some any no every each either neither both all few many much more most several
    other another same own one ones
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves who whom whose which what whatever whoever someone anyone
    everyone something anything everything nothing nobody none
    am is are was were be been being have has had having do does did doing done will would shall should can could may
    might must ought cannot
    isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't won't wouldn't shan't shouldn't can't
    couldn't mustn't mightn't needn't ain't i'm you're he's she's it's we're they're i've you've we've they've i'll
    you'll he'll she'll it'll we'll they'll i'd you'd he'd she'd we'd they'd that's there's who's what's let's
    about above across after against along among amongst around as at before behind below beneath beside besides between
    beyond by concerning despite down during except for from in inside into like near of off on onto out outside over
    past per regarding since through throughout till to toward towards under underneath until unto up upon via with
    within without
    and or but nor so yet if because although though unless while whereas whether than once
    when where why how here there then now again further just only very too also not ever never always often
    """.split()  # noqa: SIM905
)

LISTS = {"none": frozenset(), "english": ENGLISH}

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def without(text: str, stop_words: frozenset[str]) -> str:
    """The text without its stop words; what is left is joined by single spaces."""
    if not stop_words:
        return text
    kept = WORD.sub(lambda word: "" if word[0].lower().replace("’", "'") in stop_words else word[0], text)
    return " ".join(kept.split())


def words(text: str) -> int:
    """How many words a text has."""
    return sum(1 for _ in WORD.finditer(text))
