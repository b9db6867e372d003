"""Every output, loss and gradient of MoMoK against golden values, on the path that training takes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from trainers.kernels import library
from trainers.models import momok
from trainers.training.data import Data, Features
from trainers.training.kvsall import Queries

FOLDER = Path(os.environ.get("TESSERA_GOLDEN") or Path(__file__).parents[2] / "golden")
FILES = sorted(FOLDER.glob("*momok.npz"))
NAMES = {"structure": "structure", "image": "visual", "text": "textual"}  # ours: the files'
PREFIX = {"structure": "", "image": "img_", "text": "txt_"}
EXPERTS = {"structure": "structure_moe", "image": "visual_moe", "text": "text_moe"}
SCORER = {"structure": "TuckER_S", "image": "TuckER_I", "text": "TuckER_D", "joint": "TuckER_MM"}
ESTIMATOR = {"structure": "str_estimator", "image": "img_estimator", "text": "txt_estimator"}


class Case:
    """One file: the model with its weights, the batch it was run on."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.file = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
        self.model = momok.MoMoK(self.data(), self.settings())
        self.model.load_state_dict(self.weights("param::", "estimator::"))
        self.queries, self.relations = self.file["heads"], self.file["relations"]
        self.batch = self.make_batch()

    def data(self) -> Data:
        parts = {name: self.file[f"param::{PREFIX[name]}entity_embeddings.weight"] for name in ("image", "text")}
        entities = len(self.file["param::entity_embeddings.weight"])
        none = torch.empty(0, 3, dtype=torch.int64)
        return Data(
            name="golden",
            entities=entities,
            relations=len(self.file["param::relation_embeddings.weight"]) // 2,
            train=none,
            dev=none,
            test=none,
            features={name: Features(torch.arange(entities), part) for name, part in parts.items()},
            tokens={},
        )

    def settings(self) -> momok.Settings:
        return momok.Settings(
            modalities=("structure", "image", "text"),  # the order of the files' attention
            dimension=self.file["param::entity_embeddings.weight"].shape[1],
            relation_dimension=self.file["param::relation_embeddings.weight"].shape[1],
            experts=self.file["param::structure_moe.w_gate"].shape[1],
            information_weight=float(self.file["mu"]),
            dropout=(0.0, 0.0, 0.0),
            gate_noise=False,
            fusion_dropout=0.0,
        )

    def weights(self, model: str, estimator: str) -> dict[str, Tensor]:
        """The file's numbers under the names of our state dict. A gradient that the file lacks is left out."""
        found: dict[str, Tensor] = {}

        def take(ours: str, theirs: str) -> None:
            if theirs in self.file:
                found[ours] = self.file[theirs]

        for name in NAMES:
            take(f"tables.{name}.table", f"{model}{PREFIX[name]}entity_embeddings.weight")
            take(f"relation.{name}", f"{model}{PREFIX[name]}relation_embeddings.weight")
            theirs = f"{model}{EXPERTS[name]}"
            take(f"experts.{name}.gate", f"{theirs}.w_gate")
            take(f"experts.{name}.noise", f"{theirs}.w_noise")
            for ours, part in (("weight", "lin.weight"), ("bias", "bias")):
                count = self.file[f"param::{EXPERTS[name]}.w_gate"].shape[1]
                stack = [self.file[f"{theirs}.experts.{k}.{part}"] for k in range(count)]
                found[f"experts.{name}.{ours}"] = torch.stack(stack)
            for ours, part in (("mean", "p_mu"), ("log_variance", "p_logvar")):
                for layer in ("0.weight", "0.bias", "2.weight", "2.bias"):
                    take(f"estimators.{name}.{ours}.{layer}", f"{estimator}{ESTIMATOR[name]}.{part}.{layer}")
        take("temperature", f"{model}rel_gate.weight")
        for name, theirs in SCORER.items():
            prefix = f"{model}{theirs}."
            found |= {
                f"scorers.{name}.{key[len(prefix) :]}": self.file[key] for key in self.file if key.startswith(prefix)
            }
        for ours, theirs in (("fuse_entity", "fuse_e"), ("fuse_relation", "fuse_r")):
            take(f"{ours}.attention.weight", f"{model}{theirs}.ent_attn.weight")
            for i, name in enumerate(NAMES, start=1):
                for head in range(momok.HEADS):
                    for part in ("weight", "bias"):
                        take(f"{ours}.heads.{head}.{name}.{part}", f"{model}{theirs}.modal{i}_layers.{head}.1.{part}")
        return found

    def make_batch(self):
        row, answer = self.file["labels"].nonzero(as_tuple=True)
        distinct, index = torch.unique(self.relations, return_inverse=True)
        answers, answer_index = torch.unique(answer, return_inverse=True)
        return momok.Batch(self.queries, self.relations, distinct, index, row, answer, answers, answer_index)


@pytest.fixture(params=["kernels", "plain"])
def path_of_training(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setenv("TESSERA_KERNELS", "off")
    library.cache_clear()
    if request.param == "kernels" and library() is None:
        pytest.skip("the C kernels are not built")
    yield
    library.cache_clear()


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request, path_of_training, products) -> Case:
    return Case(request.param)


def close(ours: Tensor, theirs: Tensor, relative: float, what: str) -> None:
    scale = theirs.abs().max().clamp(min=1e-12)
    difference = (ours.detach() - theirs).abs().max() / scale
    assert difference <= relative, f"{what}: {difference:.2e} of the largest value"
    torch.testing.assert_close(
        ours.detach(), theirs, rtol=relative, atol=float(scale) * relative, msg=lambda m: f"{what}: {m}"
    )


def test_golden_files_are_there():
    assert FILES, f"no *momok.npz in {FOLDER}"


def predictions(case: Case) -> dict[str, Tensor]:
    known, _ = case.model.represent(case.queries, case.relations)
    found = case.model.queries(known, case.batch)
    seen, _ = case.model.represent(None)
    return {name: torch.sigmoid(found[name] @ seen[name].T) for name in found}


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_golden_predictions(case, mode):
    case.model.train(mode == "train")
    for name, prediction in predictions(case).items():
        close(prediction, case.file[f"{mode}_prediction_{NAMES.get(name, name)}"], 1e-5, name)


def test_golden_tables_and_weights(case):
    case.model.eval()
    seen, _ = case.model.represent(None)
    for name, table in seen.items():
        close(table, case.file[f"eval_all_{NAMES.get(name, name)}"], 1e-5, f"candidates {name}")
    for name, gates in case.model.gates(case.relations, case.queries).items():
        close(gates, case.file[f"eval_gate_{NAMES[name]}"], 1e-5, f"gates {name}")
    weights = case.model.modality_weights(case.queries, case.relations)[:, -1]
    close(weights, case.file["eval_modality_weight_last_head"], 1e-5, "attention")


def test_golden_score_is_the_mean_of_predictions(case):
    expected = sum(case.file[f"eval_prediction_{name}"] for name in ("structure", "visual", "textual", "joint")) / 4
    case.model.train()
    score = case.model.scorer()
    relations = case.model.relations
    for i, (known, relation) in enumerate(zip(case.queries, case.relations, strict=True)):
        side = "tail" if relation < relations else "head"
        close(score(known[None], relation[None] % relations, side)[0], expected[i], 1e-5, f"query {i}")
    assert case.model.training


def test_golden_losses_and_gradients(case):
    case.model.train()
    link, outputs = case.model(case.batch)
    close(link, case.file["loss_link"], 1e-5, "link")
    mutual = case.model.mutual_information(outputs, (0, 1), case.file["mi_permutation"])
    close(mutual, case.file["loss_mutual_information"], 1e-5, "mutual information")
    total = link + case.settings().information_weight * mutual
    close(total, case.file["loss_total"], 1e-5, "total")
    check_gradients(case, total, case.weights("grad::", "nothing::"))


def test_golden_estimators(case):
    case.model.train()
    _, outputs = case.model.represent(case.queries, case.relations)
    loss = case.model.surprise({name: output.detach() for name, output in outputs.items()}, (0, 1))
    close(loss, case.file["loss_estimator"], 1e-5, "estimators")
    estimators = case.weights("param::", "grad_estimator::")
    check_gradients(case, loss, {name: value for name, value in estimators.items() if name.startswith("estimators.")})


def check_gradients(case: Case, loss: Tensor, expected: dict[str, Tensor]) -> None:
    loss.backward()
    found = {name: p.grad for name, p in case.model.named_parameters() if p.grad is not None}
    trained = {name for name, gradient in found.items() if gradient.abs().max() > 0}
    assert expected.keys() >= trained - {name for name in trained if name.startswith("estimators.")}
    for name, gradient in expected.items():
        close(found[name], gradient, 2e-4, name)


def test_golden_labels_are_smoothed_as_in_the_file(case):
    """The closed form of the loss assumes labels 0.9 y + 1/E."""
    labels = 0.9 * case.file["labels"] + 1 / case.model.entities
    close(labels, case.file["labels_smoothed"], 1e-6, "labels")


def test_golden_batch_is_what_queries_make(case):
    """The same queries and labels, taken through the batches of training."""
    row, answer = case.file["labels"].nonzero(as_tuple=True)
    triples = torch.stack([case.queries[row], case.relations[row], answer], dim=1)
    queries = Queries(triples, case.model.entities, 2 * case.model.relations)
    forward = np.flatnonzero(queries.relation < 2 * case.model.relations)
    batch = queries.batch(forward)
    labels = torch.zeros(len(batch.known), case.model.entities)
    labels[batch.row, batch.answer] = 1
    distinct = torch.unique(torch.stack([case.relations, case.queries], 1), dim=0)
    assert torch.equal(torch.stack([batch.relation, batch.known], 1), distinct)
    for relation, known, expected in zip(case.relations, case.queries, case.file["labels"], strict=True):
        at = ((batch.relation == relation) & (batch.known == known)).nonzero()[0, 0]
        assert bool((labels[at] >= expected).all())
