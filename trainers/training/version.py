"""The version of the code that makes a run's numbers; what counts is said in pipeline/versions.py."""

from pathlib import Path

from pipeline.versions import ROOT, code_version


def run_version(model: str, root: Path = ROOT) -> str:
    """Twelve hexadecimal digits for the model, the training loop, the evaluator, and all that they import.

    The same digits stand in run.json and in data/.code/models/<model>.txt, which the stage `train` depends on.
    """
    starts = (root / "trainers/models" / f"{model}.py", root / "trainers/training/train.py")
    return code_version(*starts, whole=True, root=root)
