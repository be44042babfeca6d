"""The services of a space, and those of the default pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, fields, make_dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tune_gpu.common.default_pair import LLM, STT
from tune_gpu.config.kinds import load_kind


class SpaceServices:
    """The services of a space, one field for each. What runs while nothing is tuned: a candidate's parameters are written over it."""

    if TYPE_CHECKING:  # the fields are those of a class that is made for a space
        __dataclass_fields__: ClassVar[dict[str, Any]]

        def __init__(self, *in_order: Any, **by_name: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield name and settings of each service, in the order of the space."""
        return ((each.name, getattr(self, each.name)) for each in fields(self))

    def __getitem__(self, name: str) -> Any:
        """Return the settings of the service of this name. Raise KeyError if the space has none."""
        if name not in self:
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return any(name == each for each, _ in self.items())


PAIR = {member.name: member.kind for member in (LLM, STT)}
"""Name -> kind of the default pair."""


def _pair() -> type[SpaceServices]:
    """Return the class of the pair's services, whose settings have no `kind`. It loads their kinds, which may not import this module."""
    own = [(name, load_kind(kind).Settings) for name, kind in PAIR.items()]
    made = make_dataclass("Services", [(name, each, field(default_factory=each)) for name, each in own], bases=(SpaceServices,))
    made.__module__ = __name__  # by which it is pickled
    return made


if TYPE_CHECKING:
    Services = SpaceServices
else:
    Services = _pair()
