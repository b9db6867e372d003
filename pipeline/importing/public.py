"""Public graphs by one word: where their files lie, pinned at a commit; `import --from WN18RR`.

A checksum stands where the whole file could be read when the table was written; the others are recorded at the first
download and demanded ever after. What is fetched keeps its own licence: see the repository in the address.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import pandas as pd

from pipeline.download.sources import fetch
from pipeline.errors import UserError
from pipeline.importing.delimited import FIND_OUT, Guess
from pipeline.retry import RetryPolicy
from pipeline.settings import nearest

_RAW = "https://raw.githubusercontent.com"
_KG_BERT = f"{_RAW}/yao8839836/kg-bert/0b8f625108efcb9b43603b6840f2548ff3d3c973/data"
_MMKB = f"{_RAW}/mniepert/mmkb/dc1c89cac110ddbb9944d6ed5ab2b3c2339d320c"
_MOMOK = f"{_RAW}/zjukg/MoMoK/99c2df114d48c79708ea0608644b685183d81bd9/datasets/Kuai16K"


@dataclass(frozen=True)
class Public:
    """Addresses by what the files are of (`triples`, `valid`, `test`, `labels`, `texts`, `relations`), the checksums
    that are known by address, what the triples' files look like where that cannot be found out, and who made them.
    """

    source: str
    files: dict[str, str]
    sha256: dict[str, str] = field(default_factory=dict)
    guess: Guess = FIND_OUT
    label_before: str = ""  # where a text begins with the entity's name: what stands behind that


def _of(
    source: str, base: str, files: dict[str, tuple[str, str | None]], guess: Guess = FIND_OUT, label_before: str = ""
) -> Public:
    addresses = {kind: f"{base}/{name}" for kind, (name, _) in files.items()}
    known = {addresses[kind]: sha for kind, (_, sha) in files.items() if sha}
    return Public(source, addresses, known, guess, label_before)


_FB_LABELS = "16beedcfad3d32696e8b0b98cfa0f5eeb144f5142225f227a64fd9ce37447da5"
PUBLIC = {
    "FB15K-237": _of("Toutanova and Chen 2015, in KG-BERT's files", f"{_KG_BERT}/FB15k-237", {
        "triples": ("train.tsv", "6e4c2782169af21e9743f3b1d200886f5d595bf6bc504ec1351720949c5cdfae"),
        "valid": ("dev.tsv", "cf6309010852f6a8d47a45df830a426415d1ee6f7a3970a8376ff1fb81db4a5c"),
        "test": ("test.tsv", "5711cf41623ceb4eacc50eb6108a3ca6565c7492e3caaf82a3e355cc660d1574"),
        "labels": ("entity2text.txt", _FB_LABELS),
        "texts": ("entity2textlong.txt", None),
        "relations": ("relation2text.txt", "4bf7cb6ea0ac09b17ad210889f723be5e079669f6ae5d507787e1320bbaa0f72"),
    }),
    "WN18RR": _of("Dettmers et al. 2018, in KG-BERT's files", f"{_KG_BERT}/WN18RR", {
        "triples": ("train.tsv", "038612e783c215ee5f3ca9fbfca27b8d0739be1028fe4ee7c174aecf0b83d5df"),
        "valid": ("dev.tsv", "453ce7202afa58094a04d2b1560ee2b02660f1c260b32ce6651c8ccedd1028ab"),
        "test": ("test.tsv", "0383bceaaa1096cf3c03ec021ed0048068e2355dbfc0239b292cefdac821cec5"),
        "texts": ("entity2text.txt", "8f5c6f11753dafa879917b9bdf73d398ceb3bd4bed8d5553177e1e0f2c37521f"),
        "relations": ("relation2text.txt", "91b1de5585d686ed31498d50f1c4eed44ba9486dffbbcc0c28927ac884184918"),
    }, label_before=", "),
    "YAGO3-10": _of("Dettmers et al. 2018, in KG-BERT's files", f"{_KG_BERT}/YAGO3-10", {
        "triples": ("train.tsv", None),
        "valid": ("dev.tsv", "c9018b77ec77e99f8d48bc3258d404f10b2049a6c7b4ac6eb663697e799dc6f5"),
        "test": ("test.tsv", "003887ca8a34c90fcaf9b0250b1c30a4b5f617f80f8cf0aeab9723333061598a"),
        "texts": ("entity2text.txt", None),
        "relations": ("relation2text.txt", "0fe90dac76e52175a3b7018206a82f7854b6834a0b7fd1af955aa3dc988d89d9"),
    }),
    "FB15K": Public("MMKB (Liu et al. 2019), with KG-BERT's labels and texts", {
        "triples": f"{_MMKB}/FB15K/FB15K_EntityTriples.txt",
        "labels": f"{_KG_BERT}/FB15K/entity2text.txt",
        "texts": f"{_KG_BERT}/FB15K/entity2textlong.txt",
        "relations": f"{_KG_BERT}/FB15K/relation2text.txt",
    }, {
        f"{_KG_BERT}/FB15K/entity2text.txt": _FB_LABELS,
        f"{_KG_BERT}/FB15K/relation2text.txt": "27ddc7cf5e81d503ca24d2bdd6c83a087ab1c1074d305ba23743ee5342128681",
    }),
    "YAGO15K": _of("MMKB (Liu et al. 2019)", f"{_MMKB}/YAGO15K", {"triples": ("YAGO15K_EntityTriples.txt", None)}),
    "KVC16K": _of("the MoMoK paper's fourth graph, in its files", _MOMOK, {
        "triples": ("train.txt", "ebb91ee9d8a90cdfb58e06353ae2bf22f2086a477cd863a3945cfc289ea366aa"),
        "valid": ("valid.txt", "b7f07994c9f27d604e4f50149dbff63bea54cdf560e31507a8d2dfa4a36d56db"),
        "test": ("test.txt", "0a7ec0e44221348858af5bfd4fa9775bd86f5b5395c90e306133b3758efc7d4a"),
    }, Guess("space", False, ("head", "relation", "tail", "end"))),
}  # fmt: skip


def public(
    name: str, into: Path, *, without: Collection[str] = (), mirror: str | None = None, retry: RetryPolicy | None = None
) -> dict[str, Path]:
    """The files of the public graph `name` but those of `without`, fetched below `into`, by what they are of.

    Raises UserError if there is no such graph, or a file cannot be had or has another checksum.
    """
    if name not in PUBLIC:
        raise UserError(f"There is no public graph {name!r}; {nearest(name, list(PUBLIC), 0.4)}")
    known = PUBLIC[name]
    return {
        kind: fetch(
            address, known.sha256.get(address), into / name / f"{kind}{PurePosixPath(address).suffix}", mirror=mirror,
            record=into / name / "checksums.json", retry=retry,
        ).path
        for kind, address in known.files.items()
        if kind not in without
    }  # fmt: skip


def labels_in(texts: Path, before: str) -> pd.DataFrame:
    """Keys and labels out of a file `key<tab>name<before>description`."""
    with open(texts, encoding="utf-8") as lines:  # str.splitlines would split at U+2028 and its kin too
        rows = [line.rstrip("\n").split("\t", 1) for line in lines]
    return pd.DataFrame([(row[0], row[1].split(before)[0]) for row in rows if len(row) == 2], columns=["key", "label"])
