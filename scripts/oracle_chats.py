"""What transformers makes of the conversations in tests/helpers/chats.py, which jaxrl's tests compare with.

Runs in an environment of its own (transformers), on tokenizers that jaxrl saved:
    python -c "from tests.helpers.tokenizers import save_both; save_both('FOLDER')"
    OTHER_PYTHON scripts/oracle_chats.py FOLDER tests/lm/text/golden/chats.json

For each tokenizer and case: the ids of the prompt, and of the whole conversation.
"""

import datetime
import json
import runpy
import sys
from pathlib import Path
from unittest import mock

from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

DAY = datetime.datetime(2026, 1, 1)


def main():
    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    chats = runpy.run_path(str(Path(__file__).parent.parent / "tests" / "helpers" / "chats.py"))
    found = {}
    for name in ("byte", "prepending"):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / name)
        found[name] = [case(tokenizer, chats["TEMPLATES"], *each) for each in chats["CASES"]]
    out.write_text(json.dumps(found, separators=(",", ":")) + "\n")


def case(tokenizer, templates, template, prompt, answer, given):
    def ids(messages, asks):
        return tokenizer.apply_chat_template(
            messages, chat_template=templates[template], add_generation_prompt=asks, return_dict=False, **given
        )

    with mock.patch.object(chat_template_utils, "datetime") as clock:
        clock.now.return_value = DAY
        return {"prompt": ids(prompt, True), "both": ids([*prompt, answer], False)}


if __name__ == "__main__":
    main()
