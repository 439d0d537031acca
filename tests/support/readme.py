"""What README and SECURITY ask their readers to run."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

README, SECURITY = ((ROOT / name).read_text() for name in ("README.md", "SECURITY.md"))


def readme_acl(password: str) -> list[str]:
    [line] = re.findall(r"^ACL SETUSER exporter .*$", README, re.MULTILINE)
    return str(line).replace("choose-a-password", password).split()


def in_6_2(line: list[str]) -> list[str]:
    """The line as the README says that it is to be written there."""
    [(keys, scripts, client)] = re.findall(
        r"Redis 6\.2 has neither .*? write\s+`([^`]*)`, and\s+`([^`]*)`.*?in 6\.2 `([^`]*)`",
        README,
        re.DOTALL,
    )
    kept = [word for word in line if not re.match(r"%R~|\+eval|\+client\|", word)]
    return [*kept, *keys.split(), *scripts.split(), client]


def security_role(name: str, password: str) -> str:
    """The statements of SECURITY.md that make a role of PostgreSQL that can only read."""
    [block] = re.findall(r"^```sql\n(CREATE ROLE.*?)```$", SECURITY, re.MULTILINE | re.DOTALL)
    return str(block).replace("choose-a-password", password).replace("exporter", name)
