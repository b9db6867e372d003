"""MyGO against the numbers of the reference code, through the path that training takes."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trainers.models.mygo import Batch, Learner, MyGO, Settings
from trainers.parts.token_selection import Selection
from trainers.training.data import Data

FOLDER = Path(os.environ.get("TESSERA_GOLDEN") or Path(__file__).parents[2] / "golden")
FILES = sorted(FOLDER.glob("*mygo.npz"))

NAMES = {  # the reference's names, where ours are others
    "ent_token": "ent_token",
    "ent_embeddings": "structure",
    "rel_embeddings": "relation",
    "lp_token": "unknown",
    "pos_str_ent": "structure_bias",
    "pos_vis_ent": "tokens.image.bias",
    "pos_txt_ent": "tokens.text.bias",
    "str_ent_ln": "structure_norm",
    "str_rel_ln": "relation_norm",
    "vis_ln": "tokens.image.norm",
    "txt_ln": "tokens.text.norm",
    "proj_ent_vis": "tokens.image.project",
    "proj_ent_txt": "tokens.text.project",
    "ent_encoder.layers.0": "encoder",
    "decoder.layers": "decoder",
    "tucker_decoder": "tucker",
}
UNUSED = ("rel_token", "pos_str_rel", "pos_vis_rel", "pos_txt_rel", "rel_encoder", "visual_token_emb", "text_token_emb")


class Golden:
    """One file: its arrays as tensors, and the model and learner that hold its weights."""

    def __init__(self, path: Path, **options: object):
        with np.load(path) as file:
            self.arrays = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
        self.options = options
        heads = [h for h in (1, 2, 4, 8, 16) if self["param::ent_token"].shape[-1] % h == 0]
        # The file does not say how many heads there are: the number is the one whose output it holds.
        self.model = min((self.build(h) for h in heads), key=lambda model: relative(self.embed(model), self.expected))

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.arrays[name]

    @property
    def expected(self) -> torch.Tensor:
        return self["eval_entity_embedding"]

    def embed(self, model: MyGO) -> torch.Tensor:
        model.eval()
        with torch.no_grad():
            return model.embed(model.token_vectors())

    def build(self, heads: int) -> MyGO:
        weights = {name.removeprefix("param::"): value for name, value in self.arrays.items() if "param::" in name}
        settings = Settings(
            dimension=weights["ent_token"].shape[-1],
            hidden_dimension=weights["ent_encoder.layers.0.linear1.weight"].shape[0],
            heads=heads,
            decoder_layers=sum(name.endswith("linear1.weight") and "decoder." in name for name in weights),
            dropout=0.0,
            structure_dropout=0.0,
            image_dropout=0.0,
            text_dropout=0.0,
            scorer_dropout=(0.0, 0.0, 0.0),
            contrastive_weight=float(self["mu"]),
            temperature=float(self["contrastive_temperature"]),
            contrastive_rows=len(self["contrastive_selection"]),
            image_tokens=self["visual_token_index"].shape[1],
            text_tokens=self["textual_token_index"].shape[1],
            **self.options,
        )
        selections = {
            "image": Selection(self["visual_token_index"], self["visual_padding_mask"], self["visual_codebook"]),
            "text": Selection(self["textual_token_index"], self["textual_padding_mask"], self["textual_codebook"]),
        }
        entities, relations = len(weights["ent_embeddings"]), len(weights["rel_embeddings"])
        model = MyGO(entities, relations, selections, settings, torch.Generator().manual_seed(0))
        state = model.state_dict()
        sides = torch.cat([weights.pop(f"pos_{side}").flatten(0, 1) for side in ("head", "rel", "tail")])
        state["position"] = sides
        for name, value in weights.items():
            if not name.startswith(UNUSED):
                ours = rename(name)
                assert state[ours].numel() == value.numel(), name
                state[ours] = value.view_as(state[ours])
        model.load_state_dict(state)
        return model

    def learner(self) -> Learner:
        rows = torch.stack([self["heads"], self["relations"], self["tails"]], dim=1)
        data = Data("golden", self.model.entities, len(self.model.relation), rows, rows[:0], rows[:0], {}, {})
        cpu = torch.device("cpu")
        return Learner(self.model, data, self.model.settings, device=cpu, precision=torch.float32, seed=0)

    def batch(self) -> Batch:
        hides_tail = self["predict_tail"].bool()
        known = torch.where(hides_tail, self["heads"], self["tails"])
        return Batch(known, self["relations"], self["target"], hides_tail, self["contrastive_selection"], None, None)


def rename(name: str) -> str:
    prefix = max((old for old in NAMES if name == old or name.startswith(old + ".")), key=len)
    return NAMES[prefix] + name.removeprefix(prefix)


def relative(ours: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, relative to the largest number expected."""
    return float((ours - expected).detach().abs().max() / expected.abs().max())


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request, products):
    return Golden(request.param)


def test_there_are_golden_files():
    assert FILES, f"no file ends in mygo.npz in {FOLDER}"


def test_golden_evaluation(golden):
    golden.model.eval()
    with torch.no_grad():
        assert relative(golden.embed(golden.model), golden["eval_entity_embedding"]) < 1e-5
        assert relative(golden.model.relations(), golden["eval_relation_embedding"]) < 1e-5
    score = golden.model.scorer()
    batch = golden.batch()
    for side, rows in (("tail", batch.hides_tail), ("head", ~batch.hides_tail)):
        ours = score(batch.known[rows], batch.relation[rows], side)
        assert relative(ours, golden["eval_score"][rows]) < 1e-5


def test_golden_training_outputs(golden):
    model, batch = golden.model, golden.batch()
    model.train()
    with torch.no_grad():
        vectors = model.token_vectors()
        first = model.embed(vectors)
        assert relative(first, golden["train_entity_embedding"]) < 1e-5
        query = model.query(first[batch.known], model.relations()[batch.relation], batch.hides_tail)
        assert relative(query @ first.T, golden["train_score"]) < 1e-5
        before, after, absent = model.sequences(vectors)
        assert torch.equal(absent[:, -golden["textual_padding_mask"].shape[1] :], golden["textual_padding_mask"])
        assert relative(before, golden["encoder_input_sequence"]) < 1e-5
        assert relative(after, golden["encoder_output_sequence"]) < 1e-5


def test_golden_losses_and_gradients(golden):
    learner = golden.learner()
    golden.model.train()
    golden.model.zero_grad()
    terms = learner.losses(golden.batch())
    total = sum(terms.values())
    assert relative(terms["link"], golden["loss_link"]) < 1e-5
    assert relative(terms["contrastive"], golden["mu"] * golden["loss_contrastive"]) < 1e-5
    assert relative(total, golden["loss_total"]) < 1e-5
    total.backward()
    ours = {name: parameter.grad for name, parameter in golden.model.named_parameters()}
    sides = dict(zip(("pos_head", "pos_rel", "pos_tail"), ours.pop("position"), strict=True))
    seen = set()
    for name, expected in golden.arrays.items():
        if not name.startswith("grad::"):
            continue
        name = name.removeprefix("grad::")
        found = sides[name] if name in sides else ours[rename(name)]
        assert relative(found.flatten(), expected.flatten()) < 2e-4, name
        seen.add(name if name in sides else rename(name))
    assert seen == set(ours) | set(sides), "every parameter of ours has a golden gradient"
