"""Opens a page on this machine on which a graph's trained runs are asked: `python -m stages.ask --graph mini`.

It listens at 127.0.0.1 alone. docs/asking.md says what the page shows.
"""

from pathlib import Path

from pipeline.errors import UserError
from pipeline.settings import nearest
from stages.cli import arguments, stage
from stages.params import load_params

PORT = 8017


def runs_of(folder: Path, graph: str, models: list[str]) -> list[Path]:
    """The folders of the runs that are asked: the models named, else all that are finished.

    Raises UserError if there is none.
    """
    found = [folder / graph / model for model in models] or sorted(p.parent for p in folder.glob(f"{graph}/*/run.json"))
    if not found:
        with_runs = sorted({path.parts[-3] for path in folder.glob("*/*/run.json")})
        raise UserError(
            f"{folder / graph} holds no finished run; train one (dvc repro), or name another --graph; "
            f"{nearest(graph, with_runs)}"
        )
    return found


@stage
def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--graph", help="the graph (the first one of params.yaml)")
    parser.add_argument("--models", nargs="+", default=[], help="whose runs are asked (all that are finished)")
    parser.add_argument("--port", type=int, default=PORT, help=f"where it listens on 127.0.0.1 ({PORT}); 0: anywhere")
    options = parser.parse_args()
    try:
        from stages.ask.app import serve
    except ModuleNotFoundError as error:
        raise UserError(
            f"{error.name} is not installed; `make ask` installs it (pip install 'tessera-mmkgc[ask]')."
        ) from error
    graph = options.graph or load_params().graphs[0]
    serve(Path("data") / graph, runs_of(Path("runs"), graph, options.models), options.port)


if __name__ == "__main__":
    main()
