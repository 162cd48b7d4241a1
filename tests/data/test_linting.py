import json

import numpy as np
import pytest

from jaxrl.data.linting import conflicts, lint, suggest_buckets
from jaxrl.data.preferences import encode_rows
from jaxrl.data.settings import DataConfig


@pytest.fixture
def report(tmp_path, tokenizer):
    def made(data, **options):
        file = tmp_path / "x.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in data))
        shown = {"rows": options.pop("rows")} if "rows" in options else {}
        return lint(DataConfig(path=str(file), **{"max_length": 50, **options}), tokenizer, **shown)

    return made


def test_the_trained_tokens_are_marked_with_their_end(report):
    text = report([{"prompt": "Hi\n", "chosen": "good", "rejected": "bad" * 20}], max_length=20)
    assert "1 rows of pairs (text)" in text
    assert "row 1, chosen: 3 + 5 tokens\n    Hi\n    «good<|im_end|>»" in text
    assert "row 1, rejected: 3 + 17 tokens, truncated: no end\n    Hi\n    «" + "bad" * 5 + "ba»" in text
    assert "1 of 2 completions truncated" in text and "0 of 1 prompts truncated" in text


def test_as_many_rows_as_asked_for(report):
    data = [{"prompt": "p", "completion": f"c{i}"} for i in range(9)]
    assert report(data, rows=2).count("«") == 2 and report(data, rows=0).count("«") == 0


def test_counts_conflicts_and_balance(report):
    good = {"prompt": "p", "completion": "c", "label": True}
    rows = [good, good, good | {"label": False}, good | {"completion": ""}, good | {"completion": "<|im_end|>"}]
    text = report(rows)
    for line in (
        "4 of 5 rows kept",
        "1 rows dropped: empty completion",
        "1 rows repeat an earlier one",
        "1 rows spell a special token",
        "1 completions labelled both ways",
        "3 good, 1 bad: 75% good",
    ):
        assert f" {line}" in text
    assert "good," not in report([{"prompt": "p", "completion": "c"}])
    same = report([{"prompt": "p", "chosen": "c", "rejected": "c"}, {"prompt": "p", "chosen": "c", "rejected": "r"}])
    assert " 1 rows dropped: chosen and rejected are the same tokens" in same


def test_conflicts_by_hand(tokenizer):
    def count(*rows):
        return conflicts(encode_rows(rows, tokenizer, max_length=20))

    pair = {"prompt": "p", "chosen": "a", "rejected": "b"}
    back = {"prompt": "p", "chosen": "b", "rejected": "a"}
    assert count(pair, pair) == 0 and count(pair, back) == 1 and count(pair, back, pair, back) == 1
    assert count(pair, back | {"prompt": "q"}) == 0
    assert count(pair, {"prompt": "p", "chosen": "b", "rejected": "c"}) == 0  # a ranking, a over b over c
    good = {"prompt": "p", "completion": "c", "label": True}
    bad = good | {"label": False}
    assert count(good, good) == 0 and count(good, bad, good) == 1 and count(good, bad | {"prompt": "q"}) == 0
    assert count({"prompt": "p", "completion": "c"}, {"prompt": "p", "completion": "c"}) == 0


def test_suggested_buckets_by_hand():
    # 1..100: half lie up to 51, nine tenths up to 91, all up to 100; in multiples of 16: 64, 96, and the longest row
    assert suggest_buckets(np.arange(1, 101)) == [64, 96, 100]
    assert suggest_buckets(np.array([5, 5, 5])) == [5]


def test_histogram_and_buckets(report):
    rows = [{"prompt": "p", "completion": "c" * n} for n in (4, 4, 4, 38)]  # 6 and 40 tokens
    text = report(rows)
    assert "tokens per row (median 6, 90 % 30, longest 40):" in text
    assert f"       6 {'█' * 40} 3\n      23 {'█' * 13} 1" in text
    # 6 + 6 + 6 + 40 = 58 real tokens: of 16 · 3 + 40 = 88 in two buckets, of 4 · 40 = 160 in one
    assert "suggested buckets: [16, 40] (66% of the tokens are real; with one bucket 36%)" in text
    assert "one bucket is enough: of 3 tokens, 100% of them real" in report([{"prompt": "p", "completion": "c"}])


def test_mistakes_are_those_of_reading(report):
    with pytest.raises(ValueError, match="x.jsonl, row 2 has no `completion`"):
        report([{"prompt": "p", "completion": "c"}, {"prompt": "p"}])
