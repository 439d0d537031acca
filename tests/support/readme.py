"""What the README tells its readers to run."""

from __future__ import annotations

import re

from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()


def readme_acl(password: str) -> list[str]:
    [line] = re.findall(r"^ACL SETUSER exporter .*$", README, re.MULTILINE)
    return str(line).replace("choose-a-password", password).split()
