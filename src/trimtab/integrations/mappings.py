"""What a logger's run shows as mappings: its settings, and the newest value of every metric."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, final

from trimtab.integrations.writer import Writer


class RunConfig(dict[str, Any]):
    """Settings, which can also be read and set as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"config has no {name!r}; it has: {', '.join(map(str, self)) or 'nothing'}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


@final
class Summary(MutableMapping[str, Any]):
    """The newest value of every metric, by the name that it was logged with; what is set here goes before."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.own: dict[str, Any] = {}
        """What was set here."""

    def _all(self) -> dict[str, Any]:
        self._writer.flush(5.0)
        return {**self._writer.newest, **self.own}

    def __getitem__(self, name: str) -> Any:
        return self.own[name] if name in self.own else self._all()[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.own[name] = value

    def __delitem__(self, name: str) -> None:
        del self.own[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())
