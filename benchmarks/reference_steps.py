"""One training step of the authors' code and of PyKEEN, on the random graphs of benchmarks/step_cost, on the CPU.

Each function returns a function that takes one step, set up at the papers' sizes for DB15K, of a batch of `batch`: the
papers' is in `AUTHORS`, a smaller one is for what does not fit the memory. What the authors' loops do
beside the step is left out where that is to their advantage: AdaMF-MAT's sampling of negatives, MyGO's and MoMoK's
walk over Python lists of triples and answers. Their calls of `.cuda()` are answered by the CPU.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.step_cost import DB15K, random_triples
from trainers.training.kvsall import Queries

Step = Callable[[], object]
ENTITIES, RELATIONS = DB15K["entities"], DB15K["relations"]


def on_the_cpu(folder: Path) -> None:
    """Let the authors' code be imported from `folder`, and its `.cuda()` and `to("cuda")` stay where they are."""
    sys.path.insert(0, str(folder.resolve()))
    for kind in (Tensor, nn.Module):
        kind.cuda = lambda self, *_, **__: self  # type: ignore[method-assign, assignment]
    to = Tensor.to
    Tensor.to = lambda self, *given, **more: to(self, *("cpu" if one == "cuda" else one for one in given), **more)  # type: ignore[method-assign, assignment]


def adamf_mat(folder: Path, batch: int) -> Step:
    """`AdvMixTrainer.train_one_step` of zjukg/AdaMF-MAT: 128 negatives, 250 complex numbers."""
    on_the_cpu(folder)
    from mmkgc.adv.modules import MultiGenerator
    from mmkgc.config.AdvMixTrainer import AdvMixTrainer
    from mmkgc.module.loss import SigmoidLoss
    from mmkgc.module.model.AdvMixRotatE import AdvMixRotatE
    from mmkgc.module.strategy import NegativeSampling

    negatives, width = 128, 250
    image, text = torch.randn(ENTITIES, 4096), torch.randn(ENTITIES, 768)
    model = AdvMixRotatE(ENTITIES, RELATIONS, width, margin=12.0, img_emb=image, text_emb=text)
    strategy = NegativeSampling(model, SigmoidLoss(adv_temperature=2.0), batch_size=batch)
    generator = MultiGenerator(noise_dim=64, structure_dim=2 * width, img_dim=2 * width)
    trainer = AdvMixTrainer(strategy, None, use_gpu=False, generator=generator, lrg=1e-4, mu=0.01)
    trainer.optimizer = torch.optim.Adam(strategy.parameters(), lr=1e-4)
    trainer.optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-4)
    draw = np.random.default_rng(0)

    def step() -> object:
        rows = batch * (1 + negatives)
        sides = {f"batch_{side}": draw.integers(ENTITIES, size=rows) for side in "ht"}
        relation = np.tile(draw.integers(RELATIONS, size=batch), 1 + negatives)
        data = {**sides, "batch_r": relation, "batch_y": np.zeros(rows, np.float32), "mode": "normal"}
        return trainer.train_one_step(data)

    return step


def momok(folder: Path, batch: int) -> Step:
    """The inner loop of train.py of zjukg/MoMoK: `batch` queries, three experts, its own labels for all entities."""
    on_the_cpu(folder)
    from models.modules import MIEstimator
    from models.RelMoE import RelMoE

    from benchmarks.step_cost import momok as ours

    args = SimpleNamespace(
        device="cpu", dim=256, r_dim=256, n_exp=3, entity2id=range(ENTITIES), relation2id=range(RELATIONS),
        pre_trained=0, dataset="DB15K", img=torch.randn(ENTITIES, 4096), desp=torch.randn(ENTITIES, 768),
    )  # fmt: skip
    model = RelMoE(args)
    args.img_dim, args.txt_dim = model.img_dim, model.txt_dim
    estimator = MIEstimator(args)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)
    of_estimator = torch.optim.Adam(estimator.parameters(), lr=5e-4)
    train = ours.data(torch.Generator().manual_seed(0)).train
    batches = Queries(train, ENTITIES, RELATIONS).batches(batch, (0, 0), torch.device("cpu"))

    def step() -> object:
        queries = next(batches)
        labels = torch.zeros(len(queries.known), ENTITIES)
        labels[queries.row, queries.answer] = 1.0
        labels = 0.9 * labels + 1.0 / ENTITIES
        asked = torch.stack([queries.known, queries.relation, torch.full_like(queries.known, -1)], dim=1)
        estimator.eval()
        optimizer.zero_grad()
        output, embeddings = model(asked)
        loss = model.loss_func(output, labels) + 1e-4 * estimator(embeddings)
        loss.backward()
        optimizer.step()
        estimator.train()
        of_estimator.zero_grad()
        with torch.no_grad():
            embeddings = model.get_batch_embeddings(asked)
        second = estimator.train_estimator(embeddings)
        second.backward()
        of_estimator.step()
        return loss.item(), second.item()

    return step


def mygo(folder: Path, batch: int) -> Step:
    """The inner loop of train_mygo_fgc.py of zjukg/MyGO: 8 picture and 4 text tokens, contrastive loss."""
    on_the_cpu(folder)
    draw = torch.Generator().manual_seed(0)
    codebooks = {"visual": (8193, 32), "textual": (30_523, 768)}
    with tempfile.TemporaryDirectory() as work:
        before = Path.cwd()
        (Path(work) / "tokens").mkdir()
        for name, shape in codebooks.items():
            torch.save(torch.randn(shape, generator=draw), Path(work) / "tokens" / f"{name}.pth")
        os.chdir(work)  # where the model looks for its codebooks
        try:
            from model_mygo import MyGO

            counts = {"visual": 8, "textual": 4}
            index = {n: torch.randint(codebooks[n][0] - 1, (ENTITIES, k), generator=draw) for n, k in counts.items()}
            mask = {n: torch.zeros(ENTITIES, k, dtype=torch.bool) for n, k in counts.items()}
            model = MyGO(
                num_ent=ENTITIES, num_rel=RELATIONS, ent_vis_mask=mask["visual"], ent_txt_mask=mask["textual"],
                dim_str=256, num_head=2, dim_hid=1024, num_layer_enc_ent=1, num_layer_enc_rel=1, num_layer_dec=1,
                dropout=0.01, emb_dropout=0.6, vis_dropout=0.3, txt_dropout=0.1, visual_token_index=index["visual"],
                text_token_index=index["textual"], score_function="tucker",
            )  # fmt: skip
        finally:
            os.chdir(before)
    optimizer, loss_of = torch.optim.Adam(model.parameters(), lr=1e-3), nn.CrossEntropyLoss()

    def step() -> object:
        head, relation, tail = random_triples(draw, ENTITIES, RELATIONS, batch).unbind(1)
        hides, unknown = torch.rand(batch, generator=draw) < 0.5, torch.tensor(ENTITIES + RELATIONS)
        ends = torch.where(hides, unknown, head + RELATIONS), torch.where(hides, tail + RELATIONS, unknown)
        asked, label = torch.stack([ends[0], relation + ENTITIES, ends[1]], dim=1), torch.where(hides, head, tail)
        entities, relations = model()
        loss = loss_of(model.score(entities, relations, asked), label)
        loss = loss + model.contrastive_loss_finegrained(entities) * 0.01
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
        return loss.item()

    return step


# model -> its checkout, its step, the paper's batch.
AUTHORS: dict[str, tuple[str, Callable[[Path, int], Step], int]] = {
    "adamf_mat": ("AdaMF-MAT", adamf_mat, 1024),
    "momok": ("MoMoK", momok, 1024),
    "mygo": ("MyGO", mygo, 2048),
}
PYKEEN = {"rotate": "RotatE", "complex": "ComplEx", "transe": "TransE", "distmult": "DistMult", "tucker": "TuckER"}
BATCH, NEGATIVES, DIMENSION, TUCKER_DIMENSION = 1024, 128, 250, 256


def batch_of(model: str) -> int:
    """The batch at which a model is compared unless another is asked for: the paper's, or with PyKEEN `BATCH`."""
    return AUTHORS[model][2] if model in AUTHORS else BATCH


def pykeen_clock(model: str, steps: int, batch: int, now: Callable[[], tuple[float, ...]]) -> list[tuple[float, ...]]:
    """What `now()` shows at the start of PyKEEN's own training loop and after each of `steps` batches.

    128 Bernoulli negatives and the self-adversarial loss; TuckER: `batch` queries with all entities. Adam.
    """
    from pipeline.encoding import torchvision_repair  # noqa: F401, I001  before PyKEEN, which imports torchvision
    from pykeen.training import LCWATrainingLoop, SLCWATrainingLoop
    from pykeen.training.callbacks import TrainingCallback
    from pykeen.triples import CoreTriplesFactory
    import pykeen.models

    triples = random_triples(torch.Generator().manual_seed(0), ENTITIES, RELATIONS, steps * batch)
    factory = CoreTriplesFactory(triples, ENTITIES, RELATIONS)
    product = model == "tucker"
    own: dict = {"embedding_dim": TUCKER_DIMENSION, "relation_dim": TUCKER_DIMENSION}
    if not product:
        own = {"embedding_dim": DIMENSION, "loss": "nssa"}
        own["loss_kwargs"] = {"margin": 12.0, "adversarial_temperature": 1.0}
    built = getattr(pykeen.models, PYKEEN[model])(triples_factory=factory, random_seed=0, **own)
    times = []

    class Clock(TrainingCallback):
        def post_batch(self, epoch: int, batch: object, **_: object) -> None:
            del epoch, batch
            times.append(now())

    adam = torch.optim.Adam(built.parameters(), lr=1e-3)
    if product:
        loop = LCWATrainingLoop(model=built, triples_factory=factory, optimizer=adam)
    else:
        loop = SLCWATrainingLoop(
            model=built, triples_factory=factory, optimizer=adam, negative_sampler="bernoulli",
            negative_sampler_kwargs={"num_negs_per_pos": NEGATIVES},
        )  # fmt: skip
    times.append(now())
    loop.train(factory, num_epochs=1, batch_size=batch, use_tqdm=False, callbacks=Clock(), drop_last=False)
    return times[: steps + 1]
