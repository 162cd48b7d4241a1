"""What the documentation says is trained of a row of each shape."""

import itertools
import json
from pathlib import Path

from jaxrl.data import DataConfig
from jaxrl.data.preparation import read_encoded
from tests.helpers.tokenizers import byte_tokenizer

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "language_data.md").read_text(encoding="utf-8").splitlines()
SHAPES = [(row, told) for row, told in itertools.pairwise(GUIDE) if row[:2] == '{"' and "«" in told]


def test_rows_of_every_shape_train_what_the_guide_says():
    tokenizer = byte_tokenizer()
    assert len(SHAPES) == 8
    for row, trained in SHAPES:
        encoded, _ = read_encoded(DataConfig(), tokenizer, [json.loads(row)])
        told = trained.strip().split("   ")
        for side, expected in zip(encoded.rows[0][: len(told)], told, strict=True):
            prompt, ids = side.tokens[: side.prompt_length], side.tokens[side.prompt_length :]
            text = f"{tokenizer.decode(prompt)}«{tokenizer.decode_after(prompt, ids)}»".replace("\n", "\\n")
            assert text == expected
