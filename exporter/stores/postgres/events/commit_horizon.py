"""Tracks up to which id all events have been read, although they become visible out of order."""

from __future__ import annotations

from collections.abc import Iterable


class CommitHorizon:
    """The ids of events come from one sequence, and a transaction takes them before it commits: an
    event may appear after events with higher ids were read. So each round first notes which
    transactions are open and may have written events (`look`), and then reads all queues.

    Events that a transaction has not written yet get ids above all ids that were seen before the
    last look at which the transaction was not open. Therefore

    - once a round that began with this look is done, all ids up to `complete` have been read,
    - a transaction that was never seen open has only ids above `recent`, where the next round
      begins,
    - a transaction that was seen open and no longer is may have any id above the lowest such bound:
      the round reads `again` everything that is not complete.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}  # open transactions, each with a lower bound of its ids
        self._newest = self._before = 0  # the highest ids seen before the last two looks
        self._again = True

    def look(self, open_now: Iterable[str], newest: int) -> None:
        """Note the open transactions, and the highest id that was read so far."""
        still = set(open_now)
        if self._open.keys() - still:
            self._again = True
        self._open = {each: self._open.get(each, self._newest) for each in still}
        self._before, self._newest = self._newest, newest

    @property
    def recent(self) -> int:
        """Transactions that were never seen open have only ids above this."""
        return self._before

    @property
    def again(self) -> bool:
        """Whether this round must read everything that is not complete, not only above `recent`."""
        return self._again

    @property
    def complete(self) -> int:
        """All ids up to this have been read once the round is done."""
        return min([self._newest, *self._open.values()])

    def note_done(self) -> None:
        """All queues were read since the last look."""
        self._again = False

    def note_failed(self) -> None:
        """Not all queues were read: what this round would have found is read again."""
        self._again = True

    def give_up(self, behind: int) -> bool:
        """Stop waiting for transactions that hold `complete` below an id; True if any did."""
        given_up = [each for each, bound in self._open.items() if bound < behind]
        for each in given_up:
            self._open[each] = self._newest
        return bool(given_up)
