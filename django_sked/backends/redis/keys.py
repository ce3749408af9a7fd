"""The names of this backend's keys, all with one hash tag, so that a cluster keeps them in one slot."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Keys:
    """`lua/index.lua` says what there is under the prefix."""

    prefix: str

    @classmethod
    def of(cls, key_prefix: str, alias: str) -> Keys:
        return cls(f"{{{key_prefix}:{alias}}}:")

    @property
    def declared(self) -> tuple[str, str]:
        """The two keys that every script names; `lua/prelude.lua` says why."""
        return f"{self.prefix}layout", f"{self.prefix}void"

    @property
    def news(self) -> str:
        """The channel on which idle workers are told of messages."""
        return f"{self.prefix}news"

    def message(self, id: UUID) -> str:
        return f"{self.prefix}m:{id.hex}"
