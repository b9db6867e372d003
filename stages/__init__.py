"""One short script per stage of dvc.yaml: reads params.yaml, calls pipeline/ or trainers/, writes outputs."""

import sys
from types import TracebackType


def _stopped(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, value, trace)
        return
    print("stopped; run again to go on from here.", file=sys.stderr)


# While a script runs by `python -m`, its libraries take seconds to load, in which `cli.stage` cannot catch Ctrl-C yet.
if sys.argv[:1] == ["-m"]:
    sys.excepthook = _stopped
