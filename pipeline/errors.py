"""The one error that a user is meant to read, and words for it."""


class UserError(Exception):
    """One clear sentence: what is wrong, where it is, and what to do about it.

    The library raises it wherever outside input (a file, an address, a setting, a machine without room) cannot be
    used as it is. A stage prints the sentence without a traceback and exits with a code that is not 0; anything else
    that escapes is a defect of ours and keeps its traceback.
    """


# What json raises on bytes that are not JSON: not UTF-8, bad syntax, or brackets nested too deeply.
NO_JSON = (ValueError, RecursionError)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """`1 link`, `2,000 links`, `2 entities`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
