"""The most frequent tokens of each entity, against a slow and obvious twin."""

from collections import Counter

import numpy as np
import pytest
import torch

from trainers.parts.token_selection import most_frequent, select
from trainers.training.data import Tokens


def tokens(lists: list[tuple[int, list[int]]], codes: int = 50, width: int = 4) -> Tokens:
    """Tokens of (entity, list) pairs; the codebook's row k holds k everywhere."""
    return Tokens(
        entity=torch.tensor([entity for entity, _ in lists], dtype=torch.int64),
        offsets=torch.tensor([0, *np.cumsum([len(values) for _, values in lists])], dtype=torch.int64),
        values=torch.tensor([value for _, values in lists for value in values], dtype=torch.int64),
        token_id=torch.arange(codes),
        codebook=torch.arange(codes, dtype=torch.float32)[:, None].repeat(1, width),
    )


def twin(lists: list[tuple[int, list[int]]], entities: int, m: int) -> list[list[int]]:
    """Counter.most_common keeps the order of first occurrence among equals."""
    counts = [Counter() for _ in range(entities)]
    for entity, values in lists:
        counts[entity].update(values)
    chosen = [sorted(token for token, _ in count.most_common(m)) for count in counts]
    return [row + [-1] * (m - len(row)) for row in chosen]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("m", [1, 3, 8])
def test_most_frequent_equals_the_slow_twin(seed, m):
    random = np.random.default_rng(seed)
    owners = np.sort(random.integers(0, 20, size=40))
    lists = [(int(owner), random.integers(0, 12, size=random.integers(0, 30)).tolist()) for owner in owners]
    assert most_frequent(tokens(lists), 22, m).tolist() == twin(lists, 22, m)


def test_ties_go_to_the_first_occurrence_and_ids_ascend():
    lists = [(0, [9, 4, 7]), (0, [7, 1]), (2, [3, 2])]
    assert most_frequent(tokens(lists), 3, 2).tolist() == [[7, 9], [-1, -1], [2, 3]]


def test_pictures_of_one_entity_count_together():
    lists = [(1, [5, 5, 8]), (1, [8, 8])]
    assert most_frequent(tokens(lists), 2, 1).tolist() == [[-1], [8]]


def test_no_tokens_at_all():
    assert most_frequent(tokens([]), 3, 2).tolist() == [[-1, -1]] * 3


def test_selection_keeps_only_the_rows_in_use():
    lists = [(0, [30, 30, 10]), (2, [10, 40])]
    selection = select(tokens(lists), 3, 2)
    assert selection.codebook[:, 0].tolist() == [0, 10, 30, 40]
    assert selection.index.tolist() == [[1, 2], [0, 0], [1, 3]]
    assert selection.absent.tolist() == [[False, False], [True, True], [False, False]]
    assert selection.codebook[selection.index[0], 0].tolist() == [10, 30]
