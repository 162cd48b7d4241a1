"""A report of runs: one HTML page that needs nothing else, for a phone and for a desk."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jaxrl.reports.page.collected import Record, groups
from jaxrl.reports.page.markup import Markup, el
from jaxrl.reports.page.sections import body, title
from jaxrl.types import InputError


def write_report(path: Path, records: Sequence[Record]) -> Path:
    """Write the page about these runs, which `collect` has read, and return its path.

    Runs of the same config are seeds of one group. Raises InputError for no runs at all, and for one named twice.
    """
    names = [record.run_dir.resolve() for record in records]
    twice = [str(r.run_dir) for r, name in zip(records, names, strict=True) if names.count(name) > 1]
    if twice or not records:
        raise InputError(f"{twice[0]} is named twice; name each run once" if twice else "name at least one run")
    found = groups(records)
    return save_page(path, title(found), body(found))


def save_page(path: Path, name: str, content: Markup) -> Path:
    """Write the page that has this title and this <body>, and return its path."""
    page = resources.files("jaxrl.reports").joinpath("report.html").read_text(encoding="utf-8")
    head, tail = page.split("__BODY__")
    text = head.replace("__TITLE__", el("title", name)) + content + tail
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
