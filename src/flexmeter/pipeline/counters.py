"""Counters of one tenant that reconcile at any time: received = stored + duplicate + rejected + queued."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """What became of the messages of one tenant since the process started.

    Attributes
    ----------
    received : messages handed over by the broker or by HTTP; a redelivery after a lost connection counts again.
    stored : messages that brought at least one value that was new.
    duplicate : messages whose values were all stored before.
    rejected : messages refused by the integrity check; they are in the dead letters.
    queued : messages waiting for their commit right now.
    values_stored, values_duplicate, values_conflict : single values, as the store counted them.
    held_again : redeliveries dropped because the message was waiting here already; not in `received`.
    commits : transactions.
    """

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    queued: int = 0
    values_stored: int = 0
    values_duplicate: int = 0
    values_conflict: int = 0
    held_again: int = 0
    commits: int = 0

    @property
    def reconciled(self) -> bool:
        """Whether no message is unaccounted for."""
        return self.received == self.stored + self.duplicate + self.rejected + self.queued

    def __add__(self, other: Counters) -> Counters:
        """Return the sums, field by field."""
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Counters(*(one + two for one, two in zip(mine, theirs, strict=True)))
