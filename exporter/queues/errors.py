"""Why a store could not be read, whichever store it is."""

from __future__ import annotations


class StoreUnavailable(Exception):
    """The store did not answer. The message is one line: why, and the setting to look at.

    `public` is the reason without names of hosts and users, for clients of the API.
    """

    public = "The queues cannot be read"


class StoreRefused(StoreUnavailable):
    """It answered with a refusal: wrong credentials, a missing permission or command."""


class StoreInvalidReply(StoreUnavailable):
    """It answered with something other than what was requested."""
