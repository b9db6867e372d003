"""The work of one step of MyGO: token projection, first pass, decoder, TuckER, scores, contrastive pass, Adam."""

import torch

from benchmarks.step_cost import DB15K, Work, adam, matmul, random_triples
from trainers.models.mygo import Settings
from trainers.training.data import Data, Tokens

CODEBOOKS = {"image": (8192, 32), "text": (30_522, 768)}


def settings() -> Settings:
    return Settings()


def data(generator: torch.Generator) -> Data:
    """A random graph in which every entity has as many different tokens as the paper takes."""
    chosen = settings()
    counts = {"image": chosen.image_tokens, "text": chosen.text_tokens}
    train = random_triples(generator, **DB15K)
    tokens = {which: random_tokens(generator, counts[which], *CODEBOOKS[which]) for which in CODEBOOKS}
    return Data("random", DB15K["entities"], DB15K["relations"], train, train[:10], train[:10], {}, tokens)


def random_tokens(generator: torch.Generator, count: int, codes: int, width: int) -> Tokens:
    entities = DB15K["entities"]
    return Tokens(
        entity=torch.arange(entities),
        offsets=torch.arange(entities + 1) * count,
        values=torch.rand(entities, codes, generator=generator).topk(count).indices.flatten(),
        token_id=torch.arange(codes),
        codebook=torch.randn(codes, width, generator=generator),
    )


def work(data: Data, settings: Settings) -> list[Work]:
    entities, batch, width, hidden = data.entities, settings.batch_size, settings.dimension, settings.hidden_dimension
    counts = {"image": settings.image_tokens, "text": settings.text_tokens}
    places = 2 + sum(counts[which] for which in data.tokens)
    used = {which: len(torch.unique(found.values)) for which, found in data.tokens.items()}
    wide = {which: found.codebook.shape[1] for which, found in data.tokens.items()}

    def layer(rows: int, keys: int, asking: int) -> float:
        """A Transformer layer, forward and two gradients: keys and values, queries and output, feed-forward."""
        attention = matmul(keys, width, 2 * width, 3) + matmul(asking, width, width, 6)
        return attention + matmul(asking, width, hidden, 6) + 12.0 * rows * width

    parts = []
    for which, rows in used.items():
        # The codebook is frozen: forward, and the gradient by the weights. Normalised forward and backward.
        moved = 4.0 * rows * (2 * wide[which] + 6 * width)
        parts.append(Work(f"{which} projection", matmul(rows, wide[which], width, 2), moved))
    # Each gathered number meets each head's direction and sum, forward and twice backward; drawn three times.
    gathered = (12.0 * settings.heads + 30) * entities * (places - 1) * width
    # Values and output of [ENT], and its feed-forward network, whose hidden numbers are kept for the backward pass.
    first = matmul(entities, width, width, 6) + matmul(entities, width, hidden, 6)
    parts.append(Work("first pass", gathered + first, 4.0 * entities * (2 * hidden + 12 * width)))
    decoder = [layer(batch * 3 * 2, 3 * batch, (2 if last else 3) * batch) for last in _last(settings.decoder_layers)]
    parts.append(Work("decoder", sum(decoder), 4.0 * batch * len(decoder) * (2 * hidden + 12 * width)))
    # Σ_k r_k W_k is another matrix for each query: forward, to r and to W. Then one masked product each way.
    core = matmul(batch, width, width * width, 3)
    parts.append(Work("TuckER", core + 16.0 * batch * width * width, 4.0 * (2 * batch + 3 * width) * width * width))
    parts.append(Work("scores", (6.0 * width + 8) * batch * entities, 4.0 * 5 * entities * width))
    if settings.contrastive_weight:
        rows = settings.contrastive_rows
        whole = layer(rows * places * places * 2, rows * places, rows * places)
        views = matmul(rows, width, rows, 3) * (2 + len(data.tokens))
        parts.append(Work("contrastive", whole + views, 4.0 * rows * places * (2 * hidden + 12 * width)))
    layers = (1 + settings.decoder_layers) * (width * (4 * width + 2 * hidden) + 9 * width + hidden)
    tokens = sum((width + 1) * wide[which] + 3 * width for which in used)
    tables = (entities + data.relations + 14) * width
    parts.append(adam(width**3 + layers + tokens + tables))
    return parts


def _last(layers: int) -> list[bool]:
    return [position == layers - 1 for position in range(layers)]
