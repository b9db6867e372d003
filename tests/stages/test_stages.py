"""dvc.yaml must say what is true: each stage's deps are the modules it imports, its params the keys it reads."""

import ast

import pytest
import yaml

from pipeline.modalities import MODALITIES
from stages.dependencies import ROOT, closure, code_of, is_code, script

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Keys that say where, how fast or how patiently, but not what: changing one must run nothing again.
NO_OUTPUT = {
    *("sources", "store", "web", "graphs", "model_blocks", "evaluate.memory", "train.device"),
    *("encode.batch_size", "encode.device", "encode.store_failure", "encode.executor"),
}


@pytest.mark.parametrize("name", [name for name in STAGES if name != "check"])
def test_deps_are_the_import_closure(name):
    listed = [dep for dep in STAGES[name]["deps"] if is_code(dep)]
    assert sorted(listed) == sorted(code_of(STAGES[name])), "run `python -m stages.dependencies`"


def test_the_closure_follows_imports_of_imports_and_imports_inside_functions():
    found = closure("stages/train.py")
    training = {f"trainers/training/{name}.py" for name in ("train", "loop", "optimizer")}
    assert {"stages/train.py", *training} <= found
    assert "trainers/models/momok.py" not in found


def keys_read(path) -> set[str]:
    """Chains like `params.text.encoder` in a script, as "text.encoder"; a subscript or a call ends the chain."""
    found = set()
    tree = ast.parse(path.read_text())
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in inner:
            chain, here = [], node
            while isinstance(here, ast.Attribute):
                chain.append(here.attr)
                here = here.value
            if isinstance(here, ast.Name) and here.id == "params":
                found.add(".".join(reversed(chain)).removesuffix(".model_dump"))
    return found


def test_a_chain_of_attributes_is_a_key(tmp_path):
    script_ = tmp_path / "script.py"
    script_.write_text("x = params.text.encoder\ny = params.graph[g].images.source\nz = params.train.model_dump()\n")
    assert keys_read(script_) == {"text.encoder", "graph", "train"}


@pytest.mark.parametrize("name", [name for name in STAGES if name != "check"])
def test_params_are_the_keys_read(name):
    declared = {key.split(".")[0] for key in STAGES[name].get("params", []) if "${item.model}" not in key}
    files = [ROOT / file for file in closure(script(STAGES[name])) if file.startswith("stages/")]
    read = set().union(*(keys_read(file) for file in files))
    command = STAGES[name]["cmd"].split()
    if "--modality" in command:  # stages.encode asks for the block that the modality's row names
        read.add(f"{MODALITIES[command[command.index('--modality') + 1]].key}.encoder")
    deciding = {key.split(".")[0] for key in read if key not in NO_OUTPUT and key.split(".")[0] not in NO_OUTPUT}
    assert deciding - declared == set(), "read, but not among the params"
    assert declared - {key.split(".")[0] for key in read} == set(), "among the params, but never read"


def test_the_check_sees_all_of_params_and_every_trainer_and_goes_before_the_first_stage():
    assert {"params.yaml", "trainers"} <= set(STAGES["check"]["deps"])
    assert next(iter(STAGES["check"]["outs"][0])) in STAGES["download"]["deps"]
