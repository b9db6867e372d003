"""torch.compile takes the loss of a step as one graph, plain torch in the kernels' place, as on a GPU."""

import pytest
import torch

from tests.helpers.tiny import learner_of, settings_of, tiny
from trainers import kernels
from trainers.about import module_of
from trainers.room import constant_when_compiled

LOSSES = {
    "mygo": lambda learner, batch: sum(learner.losses(batch).values()),
    "momok": lambda learner, batch: learner.model(batch)[0],
    "transe": lambda learner, batch: learner.objective.loss(learner.model, batch)[0],
    "complex": lambda learner, batch: learner.objective.loss(learner.model, batch)[0],
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.filterwarnings("ignore")  # of torch's compiler, on caches that it does not use
def test_the_loss_of_a_step_is_one_graph(name, plain_torch):
    ignored = torch._dynamo.config.ignore_logging_functions | {kernels.log.info, kernels.log.warning}
    module = module_of(name)
    few = {"modalities": ("structure", "image")} if name in ("mygo", "momok") else {}  # the compiler is slow
    learner = learner_of(module, tiny(), settings_of(module, **few))
    learner.model.train()
    batch = next(iter(learner.batches(0)))
    constant_when_compiled()
    try:
        with torch._dynamo.config.patch(ignore_logging_functions=ignored):
            compiled = torch.compile(lambda: LOSSES[name](learner, batch), backend="eager", fullgraph=True)
            found = []
            for loss in (compiled, lambda: LOSSES[name](learner, batch)):
                torch.manual_seed(0)
                found.append(loss())
            torch.testing.assert_close(*found)
    finally:
        torch._dynamo.reset()
