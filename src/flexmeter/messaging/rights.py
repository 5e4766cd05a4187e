"""Where a client may publish: the broker acknowledges and drops anything else, so the client has to refuse it."""

from __future__ import annotations

from collections.abc import Sequence

from flexmeter.errors import AccessError, BrokerError
from flexmeter.messaging.client import matches

_MAX_REMEMBERED = 1000


class Rights:
    """The topic filters of one client; a topic that was found right is not looked at again."""

    def __init__(self, client_id: str, filters: Sequence[str]) -> None:
        self._client_id = client_id
        self._filters = [pattern.split("/") for pattern in filters]
        self._known: set[str] = set()

    def check(self, topic: str) -> None:
        """Raise `BrokerError` for what is no topic, `AccessError` where the broker would drop the message."""
        if topic in self._known:
            return
        if not topic or any(sign in topic for sign in " +#\0"):
            raise BrokerError(f"topic {topic!r}: expected no space, +, # and at least one character")
        if not any(matches(pattern, topic) for pattern in self._filters):
            raise AccessError(f"{self._client_id} is not permitted to publish to {topic}")
        if len(self._known) < _MAX_REMEMBERED:
            self._known.add(topic)
