"""The pages of the documentation, and the code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


class Block(NamedTuple):
    """What stands between two fences: its language, its text, and the line of the page that it begins on."""

    language: str
    text: str
    line: int


def name(page: Path) -> str:
    """As tests show it."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, *languages: str) -> list[Block]:
    """Those of a page in these languages, by default all."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        indent, language, body = match.groups()
        body = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        found.append(Block(language, body, text.count("\n", 0, match.start()) + 1))
    return [block for block in found if not languages or block.language in languages]


def write_files(page: Path, folder: Path) -> None:
    """The blocks of Python that begin with the name of a file, as those files: other blocks can import them."""
    for block in blocks(page, "python"):
        if (file := _FILE.match(block.text)) is not None:
            (folder / file[1]).write_text(block.text)
