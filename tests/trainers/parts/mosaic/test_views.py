"""What a modality says of each entity: bags of tokens times a matrix, on the host and where the matrix lies."""

import torch

from tests.helpers.tiny import CODES, ENTITIES, tiny
from trainers.parts.mosaic import views
from trainers.parts.mosaic.views import Bag


def test_products_with_bags_and_their_gradients_are_the_same_on_the_host_and_on_the_device(monkeypatch):
    bag = Bag(tiny().tokens["text"], ENTITIES)
    W = torch.randn(CODES, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = []
    for by_scipy in (True, False):
        monkeypatch.setattr(views, "by_scipy", lambda W, by_scipy=by_scipy: by_scipy)
        product = bag.times(W)
        found.append((product, *torch.autograd.grad(product.square().sum(), W)))
    assert found[0][0].shape == (ENTITIES, 5)
    assert not found[0][0][:3].any()  # these have no text
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
