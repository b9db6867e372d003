"""What tests of several rooms want."""

from collections.abc import Iterator

import pytest

from trainers.kernels import library


@pytest.fixture
def plain_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plain torch, as on a GPU, whether or not the C kernels were built."""
    monkeypatch.setenv("TESSERA_KERNELS", "off")
    library.cache_clear()
    yield
    library.cache_clear()
