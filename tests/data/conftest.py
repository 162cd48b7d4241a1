"""Tokenizers that all tests of data use."""

import pytest

from tests.helpers.tokenizers import byte_tokenizer


@pytest.fixture
def tokenizer():
    return byte_tokenizer()


@pytest.fixture
def bos_tokenizer():
    return byte_tokenizer(adds_bos=True)
