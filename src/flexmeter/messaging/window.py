"""How many publishes may be unacknowledged on a connection: grows with every quick answer, halves with a slow one.

A broker that syncs every message to disk answers slower, the more it is sent at once, and cuts off a client that it
could not answer within five seconds. If all clients of a restarted broker then sent everything again at once, it would
never catch up. So each connection starts small (as TCP does: additive increase, multiplicative decrease, RFC 5681).
"""

from __future__ import annotations

_START = 16
_LEAST = 4
_SLOW_S = 0.5


class Window:
    """The limit of one connection.

    Parameters
    ----------
    most : never more than this.
    """

    def __init__(self, most: int) -> None:
        self.limit = min(_START, most)
        self._most = most
        self._halved_s = 0.0

    def answered(self, sent_s: float, now_s: float) -> None:
        """Take note of an acknowledgement; an answer to what was sent before the last halving does not halve again."""
        if now_s - sent_s > _SLOW_S:
            if sent_s >= self._halved_s:
                self.limit = max(min(_LEAST, self._most), self.limit // 2)
                self._halved_s = now_s
        elif self.limit < self._most:
            self.limit += 1
