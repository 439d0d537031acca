"""The page's modules by themselves, in Node; and the libraries that it brings."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.support.paths import ROOT, TESTS
from tests.support.programs import program

PACKAGES = ROOT / "node_modules"
PAGE = ROOT / "exporter" / "web" / "page"
VENDORED = PAGE / "vendor"


def test_the_modules_of_the_page_do_what_their_own_tests_say() -> None:
    files = sorted((TESTS / "unit" / "page").glob("*.test.js"))
    assert files
    node = [program("node", "nodejs"), "--test", "--test-reporter=spec"]
    done = subprocess.run([*node, *files], capture_output=True, text=True, check=False)
    # At the end, what failed is listed again, each with its assertion.
    assert done.returncode == 0, done.stdout.rpartition("failing tests:")[2] + done.stderr


def test_the_browser_asks_for_all_modules_at_the_same_time() -> None:
    listed = re.findall(
        r'(?:src|rel="modulepreload" href)="(.+?)"', (PAGE / "index.html").read_text()
    )
    assert sorted(listed) == sorted(str(file.relative_to(PAGE)) for file in PAGE.rglob("*.js"))


@pytest.mark.parametrize("package", ["preact", "htm"])
def test_a_library_of_the_page_is_the_one_that_the_lock_file_names(package: str) -> None:
    locks = (ROOT / "package-lock.json", PACKAGES / ".package-lock.json")
    if not locks[1].exists():
        pytest.fail("the page's packages are missing: make unit brings them")
    # npm installs only what has the hash of the lock file, and notes what it has installed.
    locked, installed = (
        json.loads(lock.read_text())["packages"][f"node_modules/{package}"] for lock in locks
    )
    assert locked["integrity"].startswith("sha512-")
    assert installed["integrity"] == locked["integrity"], "run: make vendor"
    for ours, theirs in (
        (f"{package}.js", f"dist/{package}.mjs"),
        (f"{package}.LICENSE.txt", "LICENSE"),
    ):
        original = (PACKAGES / package / theirs).read_bytes()
        assert (VENDORED / ours).read_bytes() == original, "run: make vendor"
