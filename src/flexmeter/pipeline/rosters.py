"""The rosters that devices keep retained, by source and hash."""

from __future__ import annotations

from flexmeter.errors import MessageError
from flexmeter.messages.codec import decode_notice
from flexmeter.messages.notices import Roster, roster_hash
from flexmeter.messages.topics import Topic

_KEPT_PER_SOURCE = 4


class Rosters:
    """Knows the last few rosters of every source: batches sent before a change still find theirs."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Roster]] = {}

    def add(self, topic: Topic, payload: bytes) -> Roster:
        """Take a roster message; raise `MessageError` if it is none or of another device."""
        roster = decode_notice(payload, Roster)
        if roster.source != topic.device:
            raise MessageError(f"roster of {roster.source!r} on the topic of {topic.device!r}")
        if not roster.entries or len(set(roster.meters)) < len(roster.entries):
            raise MessageError("roster: expected at least one meter, each once")
        kept = self._known.setdefault(roster.source, {})
        name = roster_hash(payload)
        kept.pop(name, None)
        kept[name] = roster
        if len(kept) > _KEPT_PER_SOURCE:
            del kept[next(iter(kept))]
        return roster

    def find(self, source: str, hash: str) -> Roster | None:
        """Return a roster, None if it is not known."""
        return self._known.get(source, {}).get(hash)
