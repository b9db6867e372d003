"""Words that carry grammar rather than meaning, per language, in lower case: articles, pronouns, prepositions, …

English: the closed word classes, with the forms of be, have, do and the modal verbs, and their contractions.
"""

import unicodedata
from collections.abc import Sequence

import regex

_LINKING = """
    a an the
    about above across after against along among amongst around as at before behind below beneath beside besides between
    beyond by concerning despite down during except for from in inside into like near of off on onto out outside over
    past per regarding since through throughout till to toward towards under underneath until unto up upon via with
    within without
    and or but nor so yet if because although though unless while whereas whether than once
    """  # articles, prepositions, conjunctions

ENGLISH = frozenset(
    (
        _LINKING
        + """
    this that these those such some any no every each either neither both all few many much more most several
    other another same own one ones
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves who whom whose which what whatever whoever someone anyone
    everyone something anything everything nothing nobody none
    am is are was were be been being have has had having do does did doing done will would shall should can could may
    might must ought cannot
    isn't aren't wasn't weren't haven't hasn't hadn't don't doesn't didn't won't wouldn't shan't shouldn't can't
    couldn't mustn't mightn't needn't ain't i'm you're he's she's it's we're they're i've you've we've they've i'll
    you'll he'll she'll it'll we'll they'll i'd you'd he'd she'd we'd they'd that's there's who's what's let's
    when where why how here there then now again further just only very too also not ever never always often
    """
    ).split()
)

MYGO = frozenset(_LINKING.split())

LISTS = {"none": frozenset(), "english": ENGLISH}

# Letters with their marks (combining accents, the vowel signs of Indic scripts), and names such as AT&T or O'Brien.
_LETTERS = r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*"
WORD = regex.compile(rf"{_LETTERS}(?:['’&]{_LETTERS})*")
_PUNCTUATION = regex.compile(r"(?<=[\p{L}\p{N}])['’]s(?![\p{L}\p{N}])|[\p{P}\p{S}]+")
_MARKS = r"[\p{P}\p{S}]+"
_BRACKETS = regex.compile(r"\([^()]*\)|\[[^\[\]]*\]")
# What comes before a capital that only begins a sentence, or the text behind a label.
_BEGINNING = regex.compile(r"""(?:^|[.!?:;]["'”’)]*\s|\n)[\s"'“‘(]*$""")
# Words of grammar that are names as well: with a capital and before another capital they are taken for names.
_NAMES = frozenset("will may can own till like over under".split())  # noqa: SIM905


def without(text: str, stop_words: frozenset[str]) -> str:
    """The text without its stop words, single spaces between what is left, in Unicode's composed form (NFC).

    A word of grammar stays where it is a name: with a capital inside a sentence or a label (The Who, World War I), in
    capitals (US), before another name (Will Smith). A text of nothing but such words stays whole. A blank before the
    first word that is left stays too: vocabularies of bytes tell a word in a text from one at its beginning.
    """
    text = unicodedata.normalize("NFC", text)
    if not stop_words:
        return text
    found = list(WORD.finditer(text))
    kept = [not _is_grammar(text, found, at, stop_words) for at in range(len(found))]
    if not any(kept):
        return " ".join(text.split())
    pieces, end = [], 0
    for word, keep in zip(found, kept, strict=True):
        pieces += [text[end : word.start()], word[0] if keep else ""]
        end = word.end()
    return regex.sub(r"\s+", " ", "".join([*pieces, text[end:]])).rstrip()


def _is_grammar(text: str, found: Sequence[regex.Match], at: int, stop_words: frozenset[str]) -> bool:
    word = found[at][0]
    if word.lower().replace("’", "'") not in stop_words:
        return False
    if not word[0].isupper() or text.isupper():
        return True
    if len(word) > 1 and word.isupper():
        return False
    before = found[at - 1][0] if at else ""
    if word == "I" or word.startswith(("I'", "I’")):  # always a capital: a name only behind another (Elizabeth I)
        return not (before[:1].isupper() and before.lower() not in stop_words)
    if not _BEGINNING.search(text, max(0, found[at].start() - 200), found[at].start()):
        return False
    after = found[at + 1][0] if at + 1 < len(found) else ""
    return not (word.lower() in _NAMES and after[:1].isupper())


def without_punctuation(text: str) -> str:
    """The text without punctuation and symbols, in whose place a blank stands, and without the 's of the genitive.

    What is left is what a vocabulary of words makes of the text when its pieces of punctuation are struck out. A text
    of nothing but punctuation stays whole.
    """
    bare = regex.sub(r"\s+", " ", _PUNCTUATION.sub(" ", text)).rstrip()
    return bare if bare.strip() else text


def as_mygo(text: str) -> str:
    """A text as the released token lists of MyGO seem to have been made of theirs.

    Brackets go with what is in them; articles, prepositions and conjunctions go, also in names; punctuation goes
    without a blank in its place, so that words and numbers grow together ("present-day", "1.3 million").
    """
    whole = left = unicodedata.normalize("NFC", text)
    while (shorter := _BRACKETS.sub(" ", left)) != left:
        left = shorter
    kept = [word for word in left.split() if regex.sub(_MARKS, "", word).lower() not in MYGO]
    bare = " ".join(" ".join(regex.sub(_MARKS, "", word) for word in kept).split())
    return bare or whole


def words(text: str) -> int:
    """How many words a text has."""
    return sum(1 for _ in WORD.finditer(unicodedata.normalize("NFC", text)))
