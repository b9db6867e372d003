"""What params.yaml and the files of configs/ may hold. What a key means stands in these files themselves."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipeline.settings import STRICT, AtLeastOne, Commit, Count

Share = Annotated[float, Field(ge=0, le=1)]


class Block(BaseModel):
    model_config = STRICT


class Sources(Block):
    mirror: str | None
    timeout: Annotated[float, Field(gt=0)]
    retries: Count


class Web(Block):
    contact: str | None
    rate: Annotated[float, Field(gt=0)]
    concurrency: AtLeastOne
    attempts: AtLeastOne
    timeout: Annotated[float, Field(gt=0)]
    backoff: Annotated[float, Field(gt=0)]
    wikidata: str
    commons: str
    wikipedia: str | None


class PinnedFile(Block):
    address: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


class GraphText(Block):
    source: Literal["table", "links", "qid", "title", "wikidata", "wikipedia", "beyond_images", "none"] = "none"
    base: Literal["links", "qid", "title", "none"] = "none"
    captions: Literal["merged", "each"] = "merged"
    fallback: Literal["none", "label"] = "none"


class GraphImages(Block):
    source: Literal["drawings", "folder", "commons", "none"] = "none"
    path: str | None = None

    @model_validator(mode="after")
    def _has_a_path(self) -> Self:
        if self.source == "folder" and self.path is None:
            raise ValueError("`source: folder` needs a `path`: a folder or archive of <entity>/<file>")
        return self


RELEASED_FILES = ("features", "tokens", "codebook", "index")  # keys of `ReleasedFiles` that name a file


class ReleasedFiles(Block):
    features: str | None = None
    tokens: str | None = None
    codebook: str | None = None
    index: str | None = None
    tokens_per_picture: AtLeastOne | None = None
    padding_rows: Count | None = None
    placeholders: Literal["drop", "keep"] = "drop"


class Released(Block):
    text: ReleasedFiles | None = None
    image: ReleasedFiles | None = None


class Graph(Block):
    """configs/graphs/<graph>.yaml. All but `form` may be left out; mini.yaml says what then holds."""

    form: Literal["openke", "names"]
    folder: str | None = None
    files: dict[str, PinnedFile] = {}
    split: Literal["clean", "released"] = "clean"
    dev_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    least_dev: Annotated[float, Field(ge=0, le=1)] = 0.5
    split_seed: Count = 0
    text: GraphText = GraphText()
    images: GraphImages = GraphImages()
    encoded: Literal["here", "released"] = "here"
    released: Released = Released()

    def of(self, name: str) -> "Graph":
        """This graph under its name: its folder is data/<name>/source where neither folder nor files are given."""
        if "folder" in self.model_fields_set or self.files:
            return self
        return self.model_copy(update={"folder": f"data/{name}/source"})

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if "folder" in self.model_fields_set and self.folder is None and not self.files:
            raise ValueError("`folder` is empty and `files` lists nothing, so there is no graph; give one of them")
        return self


class Captions(Block):
    model: str | None
    revision: Commit | None
    prompt: str
    longest: AtLeastOne
    pictures: AtLeastOne | None


class Text(Block):
    encoder: str
    captions: Captions
    fields: Annotated[list[Literal["label", "description", "aliases"]], Field(min_length=1)]
    separator: str


class Images(Block):
    encoder: str
    short_side: Annotated[int, Field(ge=16)]
    max_pixels: Annotated[int, Field(ge=256, le=178_000_000)]
    quality: Annotated[int, Field(ge=1, le=95)]
    per_entity: AtLeastOne | None
    width: Literal[250, 330, 500, 960]
    licences: bool
    retry: Literal["none", "failed"]


Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]


class Encode(Block):
    batch_size: AtLeastOne
    device: Device
    precision: Literal["auto", "float32", "bfloat16"]
    store_failure: Literal["stop", "continue"]
    executor: Literal["local", "ray"]
    ray_address: str


class Train(Block):
    device: Device
    precision: Literal["auto", "float32", "bfloat16"]
    evaluate_every: AtLeastOne
    patience: Count
    checkpoint_every: Count
    processes: AtLeastOne
    dev_sample: AtLeastOne | None
    train_on: Literal["train", "train+dev"]
    tensorboard: bool
    matmul: Literal["auto", "plain", "tf32"]
    keep_memory: Count | None


class Evaluate(Block):
    memory: AtLeastOne
    reference_protocol: str | None  # the model whose authors' way of measuring it is; stages/settings.py checks it


class Complete(Block):
    per_relation: AtLeastOne
    smallest_probability: Share
    types: Literal["seen", "any"]
    models: list[str]
    relations: list[str]


class Studies(Block):
    seeds: AtLeastOne
    shares: Annotated[list[Share], Field(min_length=1)]
    noise: Annotated[list[Annotated[float, Field(ge=0)]], Field(min_length=1)]
    experts: AtLeastOne
    held_out: Annotated[float, Field(gt=0, lt=1)]
    tokens: Annotated[list[AtLeastOne], Field(min_length=1)]
    pictures: Annotated[list[AtLeastOne], Field(min_length=1)]
    text_encoders: Annotated[list[str], Field(min_length=1)]
    image_encoders: Annotated[list[str], Field(min_length=1)]


class Choices(Block):
    """params.yaml."""

    graphs: Annotated[list[str], Field(min_length=1)]
    models: list[str]
    seed: Count
    sources: Sources
    web: Web
    store: str | None
    text: Text
    images: Images
    encode: Encode
    train: Train
    evaluate: Evaluate
    complete: Complete
    studies: Studies

    @model_validator(mode="after")
    def _ray_has_a_store(self) -> Self:
        if self.encode.executor == "ray" and self.store is None:
            raise ValueError("`encode.executor: ray` needs a store that all machines see, so `store` cannot be empty")
        return self
