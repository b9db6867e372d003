"""What tests of several models want."""

from collections.abc import Iterator

import pytest
import torch

from trainers import matmul


@pytest.fixture(params=["plain", "auto"])
def products(request: pytest.FixtureRequest) -> Iterator[None]:
    """Float32 matrices multiplied by torch's own implementation, and by that which a run takes on this machine."""
    before = torch.get_float32_matmul_precision()
    matmul.use(request.param, torch.device("cpu"))
    yield
    torch.set_float32_matmul_precision(before)
