"""Every link within the repository leads somewhere, as does every path that a page names. Anchors, and links between
pages, are checked once more where the site is built (scripts/docs)."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, name

WRITTEN = [*PAGES, *(page for page in sorted(ROOT.glob("*.md")) if page not in PAGES)]
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_PATH = re.compile(r"`((?:jaxrl|experiments|scripts|tests|configs|docs)/[\w./-]+)`")


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [link for link in _LINK.findall(text) if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in links if not (page.parent / link).exists()] == []
    paths = [path for path in _PATH.findall(text) if "NAME" not in path]
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_tests_that_hold_a_promise_are_there(page):
    named = _TEST.findall(page.read_text(encoding="utf-8"))
    missing = [test for file, test in named if f"\ndef {test}(" not in (ROOT / file).read_text(encoding="utf-8")]
    assert missing == []
