"""AdaMF-MAT against numbers of the reference code, through the path that training takes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.models import adamf_mat
from trainers.training.data import Data, Features
from trainers.training.sampling import Negatives

FOLDER = Path(os.environ.get("TESSERA_GOLDEN") or Path(__file__).parents[2] / "golden")
FILES = sorted(FOLDER.glob("*adamf_mat.npz"))
WEIGHTS = {  # ours: theirs
    "entity": "entity_embedding",
    "relation": "relation_phase",
    "attention.weight": "attention_weight",
} | {
    ours: theirs
    for name, other in (("image", "visual"), ("text", "textual"))
    for ours, theirs in (
        (f"modality.{name}.table", f"{other}_feature"),
        (f"modality.{name}.projection.weight", f"{other}_projection_weight"),
        (f"modality.{name}.projection.bias", f"{other}_projection_bias"),
        (f"generators.{name}.hidden.weight", f"{other}_generator_in_weight"),
        (f"generators.{name}.hidden.bias", f"{other}_generator_in_bias"),
        (f"generators.{name}.out.weight", f"{other}_generator_out_weight"),
        (f"generators.{name}.out.bias", f"{other}_generator_out_bias"),
    )
}


class Case:
    """One file: its numbers, and a learner that holds its weights."""

    def __init__(self, path: Path):
        self.values = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
        self.positive = torch.stack([self["heads"], self["relations"], self["tails"]], dim=1)
        replaced = self["heads"][:, None] != self["negative_heads"].T
        entity = torch.where(replaced, self["negative_heads"].T, self["negative_tails"].T).contiguous()
        self.negatives = Negatives(entity, replaced)
        assert torch.equal(torch.where(replaced, self["tails"][:, None], entity), self["negative_tails"].T)
        self.noise = {
            name: (self[f"noise_head_{other}"], self[f"noise_tail_{other}"])
            for name, other in (("image", "visual"), ("text", "textual"))
        }
        self.learner = self._learner()
        self.model = self.learner.model

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.values[name]

    def _learner(self) -> adamf_mat.Learner:
        entities = len(self["param_entity_embedding"])
        every = torch.arange(entities)
        data = Data(
            name="golden",
            entities=entities,
            relations=len(self["param_relation_phase"]),
            train=self.positive,
            dev=self.positive[:0],
            test=self.positive[:0],
            features={
                "image": Features(every, self["param_visual_feature"]),
                "text": Features(every, self["param_textual_feature"]),
            },
            tokens={},
        )
        settings = adamf_mat.Settings(
            dimension=self["param_relation_phase"].shape[1],
            margin=float(self["margin"]),
            epsilon=float(self["epsilon"]),
            adversarial_temperature=float(self["adversarial_temperature"]),
            adversarial_weight=float(self["mu"]),
        )
        model = adamf_mat.build(data, settings, torch.Generator().manual_seed(0))
        state = model.state_dict()
        state.update({ours: self[f"param_{theirs}"] for ours, theirs in WEIGHTS.items()})
        model.load_state_dict(state)
        return adamf_mat.Learner(model, data, settings, device=torch.device("cpu"), precision=torch.float32, seed=0)


def near(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Equal within `tolerance` of the largest number of the array."""
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(
        ours.detach().numpy(), theirs.numpy(), rtol=tolerance, atol=tolerance * float(theirs.abs().max())
    )


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def case(request: pytest.FixtureRequest, products: None) -> Case:
    return Case(request.param)


def test_there_are_golden_files():
    assert FILES, f"no *adamf_mat.npz in {FOLDER}"


def test_golden_fusion(case: Case):
    near(case.model.fuse().joint, case["joint_embedding"])
    near(case.model.modality_weights(), case["modality_weight"])
    some = torch.tensor([3, 1, 7])
    near(case.model.fuse(some).joint, case["joint_embedding"][some])


def test_golden_scores(case: Case):
    head, relation, tail = case.positive.unbind(1)
    positive, negative = case.model.link_scores(case.model.fuse().joint, head, relation, tail, case.negatives)
    near(positive, case["positive_score"])
    near(negative, case["negative_score"].T)


def test_golden_ranking_scores(case: Case):
    score = case.model.scorer()
    near(score(case["heads"], case["relations"], "tail"), case["score_all_tails"])
    near(score(case["tails"], case["relations"], "head"), case["score_all_heads"])


def test_golden_fakes(case: Case):
    for index, side in enumerate(("head", "tail")):
        structure = case.model.entity[case[f"{side}s"]]
        made = case.model.fakes(structure, [pair[index] for pair in case.noise.values()])
        near(made[0], case[f"fake_{side}_visual"])
        near(made[1], case[f"fake_{side}_textual"])
    head, tail = (case.model.fuse(case[name]) for name in ("heads", "tails"))
    true, scores = case.model.fake_scores(head, case["relations"], tail, case.noise)
    near(true, case["positive_score"])
    for score, name in zip(scores, ("head", "tail", "both"), strict=True):
        near(score, case[f"score_fake_{name}"])
        near(case.learner.adversarial_loss(case["positive_score"], score), case[f"loss_adversarial_fake_{name}"])


def test_golden_discriminator_step(case: Case):
    batch = case.learner.distinct(case.positive, case.negatives, len(case.positive))
    terms = case.learner.discriminator_loss(batch, case.noise)
    near(terms["link"], case["loss_link"])
    near(sum(terms.values()), case["loss_discriminator"])
    sum(terms.values()).backward()
    parameters = dict(case.model.named_parameters())
    for ours, theirs in WEIGHTS.items():
        if not ours.startswith("generators."):
            near(parameters[ours].grad, case[f"grad_discriminator_{theirs}"], 2e-4)


def test_golden_discriminator_step_on_distinct_entities(case: Case, monkeypatch: pytest.MonkeyPatch):
    """Graphs too large to fuse whole take the step's own entities: the same numbers."""
    monkeypatch.setattr(adamf_mat.AdaMF, "entities", 1 << 40)
    test_golden_discriminator_step(case)


def test_golden_generator_step(case: Case):
    loss = case.learner.generator_loss(case.positive, case.noise)
    near(loss, case["loss_generator"])
    loss.backward()
    for ours, parameter in case.model.named_parameters():
        if ours.startswith("generators."):
            near(parameter.grad, case[f"grad_generator_{WEIGHTS[ours]}"], 2e-4)
