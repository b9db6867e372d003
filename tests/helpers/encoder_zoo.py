"""Small checkpoints of every encoder family, in the layouts of the public ones, and inputs to feed them."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from safetensors.torch import save_file

from pipeline import tables
from pipeline.encoding import encoders, torchvision_repair  # noqa: F401

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden" / "beit_vqkd.npz"
WORDS = [f"word{n}" for n in range(200)] + ["the", "of", "and", "bach", "composer", "leipzig", "don't", "a", "is"]


def bert(folder: Path, *, hidden: int = 32, vocabulary: list[str] | None = None) -> Path:
    """A BERT with WordPiece, as save_pretrained writes it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(WORDS if vocabulary is None else vocabulary)]
    pieces += [*"abcdefghijklmnopqrstuvwxyz0123456789'", *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789")]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces), hidden_size=hidden, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def byte_pairs(folder: Path, kind: str) -> Path:
    """A RoBERTa or a LLaMA with a byte-pair vocabulary trained on the words above."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    template = "<s> $A </s>" if kind == "roberta" else "<s> $A"
    tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("<s>", 0), ("</s>", 2)])
    padding = {"pad_token": "<pad>"} if kind == "roberta" else {}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **padding
    ).save_pretrained(folder)
    torch.manual_seed(0)
    size = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    if kind == "roberta":
        model = RobertaModel(RobertaConfig(**size, intermediate_size=64, max_position_embeddings=66, pad_token_id=1))
    else:
        model = LlamaModel(LlamaConfig(**size, intermediate_size=64, max_position_embeddings=64)).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="40KB")
    return folder


def vqkd(folder: Path) -> Path:
    """The golden VQ-KD tokenizer as a `.pth`, with a trainer's leftovers beside the weights."""
    import argparse

    golden = np.load(GOLDEN)
    state = {name[7:]: torch.from_numpy(golden[name]) for name in golden if name.startswith("param::")}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"model": state, "args": argparse.Namespace(lr=1.0)}, folder / "vqkd.pth")
    return folder / "vqkd.pth"


def vqgan(folder: Path, *, trained: bool = True, size: int = 32) -> Path:
    """A small VQGAN as a Lightning checkpoint."""
    from pipeline.encoding.encoders import vqgan

    torch.manual_seed(0)
    settings = vqgan.Settings("", size=size, attention_at=16)
    model = vqgan.Tokenizer(channels=32, multipliers=(1, 2), depth=1, width=32, codes=64, settings=settings)
    if trained:
        torch.nn.init.normal_(model.quantize.embedding.weight)
    state = {**model.state_dict(), "decoder.conv_in.weight": torch.zeros(3), "loss.logvar": torch.zeros(1)}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": state, "epoch": 3, "global_step": 7}, folder / "last.ckpt")
    return folder / "last.ckpt"


def vit(folder: Path) -> Path:
    """A small ViT as timm's hub folders lie."""
    import timm

    torch.manual_seed(0)
    args = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 8}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **args)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "num_classes": 5}
    about = {"architecture": "vit_tiny_patch16_224", "model_args": args, "pretrained_cfg": cfg, "num_classes": 5}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def blocks(folder: Path) -> dict[str, dict]:
    """A block of params.yaml for each family, and for each kind of tokenizer of language models."""
    return {
        "bert": {"family": "language", "model": str(bert(folder / "bert"))},
        "bert-first": {"family": "language", "model": str(bert(folder / "bert")), "pooling": "first"},
        "bert-tokens": {"family": "language", "model": str(bert(folder / "bert")), "pooling": "none"},
        "roberta": {"family": "language", "model": str(byte_pairs(folder / "roberta", "roberta"))},
        "llama": {"family": "language", "model": str(byte_pairs(folder / "llama", "llama"))},
        "beit": {"family": "beit", "weights": str(vqkd(folder / "beit")), "heads": 4},
        "vqgan": {"family": "vqgan", "weights": str(vqgan(folder / "vqgan")), "size": 32},
        "timm": {"family": "timm", "model": str(vit(folder / "timm"))},
        "patches": {"family": "patches", "codes": 32, "size": 32},
        "clusters": {"family": "clusters", "model": str(vit(folder / "timm")), "codes": 16},
        "residual": {"family": "residual", "model": str(vit(folder / "timm")), "codes": 8, "levels": 3},
    }


NAMES = (
    "bert", "bert-first", "bert-tokens", "roberta", "llama", "beit", "vqgan", "timm", "patches", "clusters", "residual",
)  # fmt: skip


def load(name: str, block: dict, inputs=None, precision: torch.dtype = torch.float32):
    """The encoder of a block, as the stage makes it (a learned codebook comes from `inputs`)."""
    module = encoders.families()[block["family"]]
    module, settings = encoders.settings(block, module.KIND)
    extra = {}
    if hasattr(module, "learn"):
        raws = sorted(pair for some in inputs.read(np.ones(len(inputs.keys), bool), 99) for pair in some)
        extra = {"centroids": module.learn(settings, (raw for _, raw in raws))}
    return module.load(settings, device=CPU, precision=precision, **extra)


def picture(seed: int, width: int = 40, height: int = 56) -> bytes:
    """A picture of some coloured squares, as JPEG."""
    generator = np.random.default_rng(seed)
    small = generator.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR).save(content, "JPEG")
    return content.getvalue()


def text(seed: int) -> str:
    generator = np.random.default_rng(seed)
    return " ".join(generator.choice(WORDS, generator.integers(1, 40)))


def write_texts(path: Path, texts: dict[int, str | None]) -> Path:
    """A text table of entity -> text."""
    ids = list(texts)
    none = [None] * len(ids)
    columns = {
        "entity_id": ids, "label": none, "description": none, "aliases": [[]] * len(ids), "text": list(texts.values()),
        "source": none, "status": ["missing" if one is None else "ok" for one in texts.values()],
    }  # fmt: skip
    tables.write(path, "text", columns, {})
    return path


def write_pictures(folder: Path, pictures: list[tuple[int, int, bytes | None]], parts: int = 2) -> Path:
    """Parts of a picture table of (entity, image_ix, bytes or None)."""
    rows = [
        {
            "entity_id": entity, "image_ix": ix, "source": None, "width": None, "height": None, "bytes": content,
            "sha256": None if content is None else hashlib.sha256(content).hexdigest(), "error": None, "attempts": 1,
            "status": "missing" if content is None else "ok", "fetched_at": None, "licence": None, "author": None,
        }
        for entity, ix, content in pictures
    ]  # fmt: skip
    for part in range(parts):
        some = pa.Table.from_pylist(rows[part::parts], tables.SCHEMAS["images"])
        tables.write(folder / f"part-{part:05d}.parquet", "images", some, {})
    return folder


def git(folder: Path) -> Path:
    """A small GIT, which says random words about a picture, as save_pretrained writes it."""
    from transformers import BertTokenizerFast, CLIPImageProcessor, GitConfig, GitForCausalLM, GitProcessor

    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    cutter = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    GitProcessor(cutter, tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = GitConfig(
        vision_config={**size, "image_size": 32, "patch_size": 8}, vocab_size=len(pieces), max_position_embeddings=96,
        bos_token_id=2, eos_token_id=3, pad_token_id=0, initializer_range=1.0, **size,
    )  # fmt: skip
    GitForCausalLM(config).save_pretrained(folder)
    return folder


def llava(folder: Path) -> Path:
    """A small LLaVA, which is asked about a picture, in the layout of its pages."""
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    for path in byte_pairs(folder, "llama").glob("model*"):
        path.unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    cutter = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    LlavaProcessor(
        cutter, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1
    ).save_pretrained(folder)
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    seen = {"model_type": "clip_vision_model", **size, "image_size": 32, "patch_size": 8, "projection_dim": 32}
    read = {"model_type": "llama", **size, "vocab_size": len(tokenizer), "pad_token_id": 1, "initializer_range": 1.0}
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=seen, text_config=read, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
    )  # fmt: skip
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder
