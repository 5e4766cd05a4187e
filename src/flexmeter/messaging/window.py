"""How many publishes may be unacknowledged on a connection: grows with every quick answer, halves with a slow one.

A broker that syncs every message to disk answers slower, the more it is sent at once, and cuts off a client that it
could not answer within five seconds. If all clients of a restarted broker then sent everything again at once, it would
never catch up. So each connection starts small (as TCP does: additive increase, multiplicative decrease, RFC 5681).

A connection after one that was cut off with publishes under way is careful: the broker may have had no place for more
(a tenant over its quota). What it then sends at full speed comes as a burst at the cost of everybody else, so its
limit starts with two and at most doubles every second.
"""

from __future__ import annotations

_START = 16
_LEAST = 4
_SLOW_S = 0.5
_CAREFUL_START = 2
_DOUBLING_S = 1.0


class Window:
    """The limit of one connection.

    Parameters
    ----------
    most : never more than this.
    careful : whether the connection before was cut off with publishes under way.
    """

    def __init__(self, most: int, careful: bool = False) -> None:
        self.limit = min(_CAREFUL_START if careful else _START, most)
        self._most = most
        self._ceiling = self.limit if careful else most
        self._raised_s: float | None = None
        self._halved_s = 0.0

    def answered(self, sent_s: float, now_s: float) -> None:
        """Take note of an acknowledgement; an answer to what was sent before the last halving does not halve again."""
        self._raise_ceiling(now_s)
        if now_s - sent_s > _SLOW_S:
            if sent_s >= self._halved_s:
                self.limit = max(min(_LEAST, self.limit), self.limit // 2)
                self._halved_s = now_s
        elif self.limit < self._ceiling:
            self.limit += 1

    def _raise_ceiling(self, now_s: float) -> None:
        if self._raised_s is None:
            self._raised_s = now_s
        elif self._ceiling < self._most and now_s - self._raised_s >= _DOUBLING_S:
            self._ceiling = min(2 * self._ceiling, self._most)
            self._raised_s = now_s
