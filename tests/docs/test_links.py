"""Links between pages lead somewhere; Sphinx sees those of docs/, but not those of README.md."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import DOCS, PAGES, name

_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


#: Others' pages that we link to; what they say is looked at by `sphinx -b linkcheck`, where there is a network.
HOSTS = {
    *("docs.djangoproject.com", "pypi.org", "pytest-django.readthedocs.io"),
    *("docs.celeryq.dev", "procrastinate.readthedocs.io", "django-q2.readthedocs.io", "huey.readthedocs.io"),
    *("python-rq.org", "apscheduler.readthedocs.io", "temporal.io", "semver.org", "www.standardwebhooks.com"),
}


def test_links_lead_to_hosts_that_we_know_and_encrypted() -> None:
    targets = {target for page in PAGES for target in _LINK.findall(page.read_text(encoding="utf-8"))}
    links = [urlsplit(target) for target in targets if "://" in target]
    links = [link for link in links if link.hostname != "127.0.0.1"]

    assert {link.scheme for link in links} == {"https"}
    assert {link.hostname for link in links} == HOSTS


def test_every_page_is_in_the_index() -> None:
    entries = re.findall(r"^[\w/-]+$", (DOCS / "index.md").read_text(encoding="utf-8"), re.M)
    pages = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")}
    assert set(entries) == pages - {"index"}
