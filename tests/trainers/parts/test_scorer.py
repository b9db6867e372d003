"""What is no query is refused in one sentence by every model, and what is one is answered however it is written."""

import numpy as np
import pytest
import torch

from pipeline.errors import UserError
from tests.helpers.tiny import ENTITIES, RELATIONS, settings_of, tiny
from trainers.about import MODELS, module_of


@pytest.fixture(scope="module", params=MODELS)
def score(request):
    module = module_of(request.param)
    return module.build(tiny(), settings_of(module), torch.Generator().manual_seed(0)).scorer()


def test_queries_are_answered_however_their_ids_are_written(score):
    expected = score(torch.tensor([3]), torch.tensor([1]), "tail")
    assert expected.shape == (1, ENTITIES)
    for known, relation in (
        (3, 1),
        (torch.tensor(3), torch.tensor(1)),
        ([3], (1,)),
        (np.array([3], dtype=np.int32), np.int64(1)),
        (torch.tensor([3], dtype=torch.int16), torch.tensor([1], dtype=torch.uint8)),
    ):
        assert torch.equal(score(known, relation, "tail"), expected)
    assert score([], [], "head").shape == (0, ENTITIES)
    columns = torch.tensor([[3, 1], [4, 2]])  # a column is not contiguous
    assert torch.equal(score(columns[:, 0], columns[:, 1], "tail")[:1], score([3, 4], [1, 2], "tail")[:1])


@pytest.mark.parametrize(
    ("known", "relation", "side", "said"),
    [
        ([3], [0], "Tail", "'head' or 'tail'"),
        ([3], [0], "", "'head' or 'tail'"),
        ([3], [0], None, "'head' or 'tail'"),
        ([-1], [0], "tail", f"{ENTITIES} entities, 0 to {ENTITIES - 1}; -1"),
        ([ENTITIES], [0], "head", f"0 to {ENTITIES - 1}; {ENTITIES}"),
        ([3], [RELATIONS], "tail", f"{RELATIONS} relations, 0 to {RELATIONS - 1}; {RELATIONS}"),
        ([3], [-1], "tail", "-1"),
        ([3, 4], [0], "tail", "2 and 1"),
        ([3], [0, 1, 2], "tail", "1 and 3"),
        ([[3]], [0], "tail", "one dimension"),
        ([3.0], [0], "tail", "integers"),
        ([True], [0], "tail", "integers"),
        ([float("nan")], [0], "tail", "integers"),
        (["Q42"], [0], "tail", "integers"),
        (None, [0], "tail", "integers"),
    ],
)
def test_what_is_no_query_is_a_sentence(score, known, relation, side, said):
    with pytest.raises(UserError) as refused:
        score(known, relation, side)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_scorer_leaves_the_model_in_the_mode_it_was_in(score):
    for mode in (True, False):
        score.model.train(mode)
        score([0], [0], "tail")
        assert score.model.training == mode
