"""The one error that a user is meant to read."""


class UserError(Exception):
    """One clear sentence: what is wrong, where it is, and what to do about it.

    The library raises it wherever outside input (a file, an address, a setting, a machine without room) cannot be
    used as it is. A stage prints the sentence without a traceback and exits with a code that is not 0; anything else
    that escapes is a defect of ours and keeps its traceback.
    """


# What json raises on bytes that are none: not UTF-8, not JSON, or brackets in brackets beyond any sense.
NO_JSON = (ValueError, RecursionError)
