"""Up to which id all events have been read, where they do not become visible in order."""

from __future__ import annotations

from collections.abc import Iterable


class CommitHorizon:
    """The ids of events come from one sequence, and a transaction takes them before it commits: an
    event may appear after others with higher ids were read. So each round notes first which
    transactions may have written events and are still open (`look`), and then reads all queues.

    What a transaction has not written yet gets an id above all that were seen before the last look
    at which it was not open. Hence

    - all ids up to `complete` were read once a round is done that began with this look,
    - a transaction that was never seen open has ids above `recent`, where the next round begins,
    - one that was seen open, and is not any more, may have any id above the lowest such bound: the
      round reads `again` from what is complete.
    """

    def __init__(self) -> None:
        self._open: dict[str, int] = {}  # transactions, and below which ids they have none
        self._newest = self._before = 0  # the highest ids seen before the last two looks
        self._again = True

    def look(self, open_now: Iterable[str], newest: int) -> None:
        """Note who is open, and the highest id that was read so far."""
        still = set(open_now)
        if self._open.keys() - still:
            self._again = True
        self._open = {each: self._open.get(each, self._newest) for each in still}
        self._before, self._newest = self._newest, newest

    @property
    def recent(self) -> int:
        """Ids of events that nobody was seen to write are above this."""
        return self._before

    @property
    def again(self) -> bool:
        """Whether this round is to read from what is complete, not from `recent`."""
        return self._again

    @property
    def complete(self) -> int:
        """All ids up to this have been read when the round is done."""
        return min([self._newest, *self._open.values()])

    def note_done(self) -> None:
        """All queues were read since the last look."""
        self._again = False

    def note_failed(self) -> None:
        """They were not: what this round would have found is looked for again."""
        self._again = True

    def give_up(self, behind: int) -> bool:
        """Wait no longer for transactions that keep `complete` below an id; whether there are."""
        given_up = [each for each, bound in self._open.items() if bound < behind]
        for each in given_up:
            self._open[each] = self._newest
        return bool(given_up)
