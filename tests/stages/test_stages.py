"""dvc.yaml must say what is true: each stage depends on its code, and its params are the keys that it reads."""

import ast

import pytest
import yaml

from pipeline.modalities import MODALITIES
from pipeline.settings import known_keys
from pipeline.versions import ROOT, closure
from stages.code import PLUMBING, scripts
from stages.params.schema import Choices, Graph

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]

# Keys that say where, how fast or how patiently, but not what: changing one must run nothing again.
NO_OUTPUT = {
    *("sources", "store", "web", "graphs", "models", "path", "studies", "evaluate.memory", "complete.models"),
    *("train.device", "train.processes", "train.checkpoint_every", "train.tensorboard", "train.keep_memory"),
    *("encode.batch_size", "encode.device", "encode.store_failure", "encode.executor", "encode.ray_address"),
}
# The files that hold what a script reads of configs/, as stages.params calls it.
CONFIGS = {
    "data/.checked/graphs/${item.graph}.json": "graph.*",
    "data/.checked/settings/${item.graph}/${item.model}.json": "model_blocks.*",
    "configs/encoders/${text.encoder}.yaml": "encoders.*",
    "configs/encoders/${images.encoder}.yaml": "encoders.*",
}
# Functions of stages.params that read them for their caller.
READERS = {"model_settings": "model_blocks.*", "encoder_settings": "encoders.*"}


def script(name: str) -> str:
    """The script that a stage runs: `python -m stages.<script> …`."""
    return STAGES[name]["cmd"].split()[2].removeprefix("stages.")


@pytest.mark.parametrize("name", [name for name in STAGES if name != "check"])
def test_a_stage_depends_on_its_code_and_on_that_of_what_it_loads_by_name(name):
    deps = [dep.removeprefix("data/.code/") for dep in STAGES[name]["deps"] if dep.startswith("data/.code/")]
    expected = [f"stages/{script(name)}.txt"]
    if name in ("train", "evaluate", "complete"):
        expected.append("models/${item.model}.txt")
    if name.startswith("encode_"):
        expected.append("encoders/${" + name.removeprefix("encode_") + ".encoder}.txt")
    assert deps == expected
    assert not [dep for dep in STAGES[name]["deps"] if dep.endswith(".py")]


def test_the_check_sees_all_code_and_goes_before_every_stage():
    deps = STAGES["check"]["deps"]
    outs = {out if isinstance(out, str) else next(iter(out)) for out in STAGES["check"]["outs"]}
    assert {"params.yaml", "configs", "pipeline", "stages", "trainers"} <= set(deps)
    assert outs == {"data/.checked/graphs", "data/.checked/settings", "data/.code", "data/params.checked"}
    assert "data/params.checked" in STAGES["download"]["deps"]


def test_the_report_depends_on_what_it_shows_of_each_graph_and_run():
    assert not {"data", "runs"} & set(STAGES["report"]["deps"])
    assert "data/.shown" in STAGES["report"]["deps"]
    assert all(STAGES[name]["outs"][0].startswith("data/.shown/") for name in ("shown_graph", "shown_run"))


def chain(node: ast.expr, known: dict[str, str]) -> str | None:
    """The key that an expression reads: `params.graph[name].images` is "graph.*.images"; `known` maps names to keys."""
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        base = chain(node.value, known)
        return None if base is None else base if node.attr == "model_dump" else f"{base}.{node.attr}".lstrip(".")
    if isinstance(node, ast.Subscript):
        base = chain(node.value, known)
        return None if base is None else f"{base}.*"
    return None


def keys_read(tree: ast.AST) -> set[str]:
    """The keys that a script reads from `params`, also through a name given to a block in the same function."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return set().union(*map(keys_read_within, functions or [tree]))


def keys_read_within(tree: ast.AST) -> set[str]:
    known, found = {"params": ""}, set()
    for node in ast.walk(tree):  # assignments first, in the order of the file
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            targets, values = [node.targets[0]], [node.value]
            if isinstance(targets[0], ast.Tuple) and isinstance(values[0], ast.Tuple):
                targets, values = targets[0].elts, values[0].elts
            for target, value in zip(targets, values, strict=False):
                if isinstance(target, ast.Name) and (key := chain(value, known)):
                    known[target.id] = key
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Subscript)}
    named = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in READERS:
            found.add(READERS[node.func.id])
        if isinstance(getattr(node, "ctx", None), ast.Load) and id(node) not in inner | named:
            found.add(chain(node, known))
    return found - {None, ""}


def expanded(key: str) -> set[str]:
    """A key that stands for a block as the keys in it, as far as stages/params/schema.py knows them."""
    of_graph = key.startswith("graph.*")
    way = [part for part in key.removeprefix("graph.*").split(".") if part]
    inner = [] if key.split(".")[0] in ("model_blocks", "encoders") else known_keys(Graph if of_graph else Choices, way)
    return set().union(*(expanded(f"{key}.{name}") for name in inner)) if inner else {key}


def covers(outer: str, inner: str) -> bool:
    return outer == inner or inner.startswith(f"{outer}.")


def undeclared(read: set[str], declared: set[str]) -> set[str]:
    """Keys that are read and decide something, but that no declared key is or holds."""
    found = set()
    for key in read:
        if not any(covers(one, key) for one in declared | NO_OUTPUT):
            keys = expanded(key)
            found |= {one for one in keys if not any(covers(other, one) for other in declared | NO_OUTPUT)}
    return found


def declared_by(name: str) -> set[str]:
    found = set()
    for one in STAGES[name].get("params", []):
        if isinstance(one, str):
            found.add(one)
            continue
        for file, keys in one.items():
            found |= {f"{CONFIGS[file]}.{key}" for key in keys} if keys else {CONFIGS[file]}
    return found


def read_by(name: str) -> set[str]:
    files = {path for path in closure([scripts()[script(name)]], but=PLUMBING) if path.is_relative_to(ROOT / "stages")}
    found = set().union(*(keys_read(ast.parse(path.read_text())) for path in files))
    command = STAGES[name]["cmd"].split()
    if "--modality" in command:  # stages.encode asks for the block that the modality's row names
        found.add(f"{MODALITIES[command[command.index('--modality') + 1]].key}.encoder")
    return found


@pytest.mark.parametrize("name", [name for name in STAGES if name != "check"])
def test_params_are_the_keys_read(name):
    declared, read = declared_by(name), read_by(name)
    assert undeclared(read, declared) == set(), "read, but not among the params"
    unread = {key for key in declared if not any(covers(key, one) or covers(one, key) for one in read)}
    assert unread == set(), "among the params, but never read"


def test_keys_are_followed_through_blocks_and_names():
    script_ = """
x = params.text.encoder
settings = params.graph[g]
texts, images = settings.text.source, params.graph[g].images.source
y = params.train.model_dump()
use(params.encoders[params.text.encoder], texts, images, y)
"""
    assert keys_read(ast.parse(script_)) == {
        *("graph.*.text.source", "graph.*.images.source", "text.encoder", "train", "encoders.*"),
    }


def test_a_key_of_a_declared_block_is_not_declared_by_its_neighbour():
    read, declared = {"images.per_entity", "graph.*.images.source"}, {"images.width", "graph.*.images"}
    assert undeclared(read, declared) == {"images.per_entity"}


def test_a_block_that_is_read_whole_is_declared_key_by_key():
    declared = expanded("train") - {"train.evaluate_every"}
    assert undeclared({"train"}, declared) == {"train.evaluate_every"}
