"""Collections of modules that know what they hold, so that types can be checked."""

from collections.abc import ItemsView, Iterator, ValuesView
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


class Modules(nn.ModuleDict, Generic[M]):
    """An nn.ModuleDict whose modules are all of one kind."""

    if TYPE_CHECKING:

        def __getitem__(self, key: str) -> M: ...

        def items(self) -> ItemsView[str, M]: ...  # type: ignore[override]

        def values(self) -> ValuesView[M]: ...  # type: ignore[override]


class ModuleSequence(nn.ModuleList, Generic[M]):
    """An nn.ModuleList whose modules are all of one kind."""

    if TYPE_CHECKING:

        def __iter__(self) -> Iterator[M]: ...
