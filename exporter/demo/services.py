"""The services of Open Archiver that fail in the demo: mail servers and the search engine."""

from __future__ import annotations

import random


class ServiceError(Exception):
    """An error from a service; the nested functions below give it a stack trace."""


def fetch_from_imap(mailbox: str, broken: bool) -> None:
    _open_imap_session(mailbox, broken)


def _open_imap_session(mailbox: str, broken: bool) -> None:
    if broken and random.random() < 0.3:  # noqa: S311 - chance, not secrets
        raise ConnectionResetError("read ECONNRESET")
    _authenticate(mailbox, broken)


def _authenticate(mailbox: str, broken: bool) -> None:
    if broken:
        raise ServiceError(
            f"IMAP authentication failed for {mailbox}: "
            "NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"
        )


def fetch_from_gmail(mailbox: str, broken: bool) -> None:
    _call_gmail_api(f"users/{mailbox}/history", broken)


def _call_gmail_api(path: str, broken: bool) -> None:
    if broken:
        raise ServiceError(
            f"429 GET gmail/v1/{path}: Quota exceeded for quota metric 'Queries' and limit "
            "'Queries per minute per user' of service 'gmail.googleapis.com'"
        )


def fetch_from_pst(mailbox: str, broken: bool) -> None:
    _read_pst_header(f"uploads/{mailbox}.pst", broken)


def _read_pst_header(path: str, broken: bool) -> None:
    if broken:
        raise ServiceError(f"{path} is not a valid PST file: it does not begin with !BDN")


def add_to_index(broken: bool) -> None:
    _post_documents("http://meilisearch:7700/indexes/emails/documents", broken)


def _post_documents(url: str, broken: bool) -> None:
    if broken:
        raise ServiceError(f"Request to {url} has failed: connect ECONNREFUSED 172.18.0.4:7700")
