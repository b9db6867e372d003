"""Stage check: params.yaml and configs/, before any other stage runs.

It also writes down what the others rest on and DVC cannot see by itself: the settings that hold for each graph and
model (stages/settings.py), versions of the code (stages/code.py), links to what lies outside (stages/watched.py).
"""

from pathlib import Path

from pipeline import tables
from stages import settled, watched
from stages.cli import stage
from stages.params import load_params

OUT = Path("data/params.checked")


@stage
def main() -> None:
    read = settled.digest()  # before anything is read: what is saved meanwhile has not been checked
    params = load_params()
    if not settled.settled(read):
        from stages import code, settings  # here: they bring PyTorch, which takes seconds

        settings.check(params)
        settings.write(params)
        code.write({name: block.get("family", "") for name, block in params.encoders.items()})
        settled.settle(read)
    for graph in params.graphs:
        watched.watch(graph, params.graph[graph])
    # Always the same bytes: what follows must not run again because some other key changed.
    tables.write_text(OUT, "params.yaml has been checked.\n")


if __name__ == "__main__":
    main()
