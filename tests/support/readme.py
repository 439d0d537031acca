"""What README and SECURITY ask their readers to run."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

README, SECURITY = ((ROOT / name).read_text() for name in ("README.md", "SECURITY.md"))


def readme_acl(password: str) -> list[str]:
    [line] = re.findall(r"^ACL SETUSER exporter .*$", README, re.MULTILINE)
    return str(line).replace("choose-a-password", password).split()


def security_role(name: str, password: str) -> str:
    """The statements of SECURITY.md that make a role of PostgreSQL that can only read."""
    [block] = re.findall(r"^```sql\n(CREATE ROLE.*?)```$", SECURITY, re.MULTILINE | re.DOTALL)
    return str(block).replace("choose-a-password", password).replace("exporter", name)
