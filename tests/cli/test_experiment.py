"""What the command line makes a sentence of, and what it leaves alone."""

import numpy as np
import pytest

from jaxrl import cli
from jaxrl.types import InputError


def test_bad_input_is_shortened_to_its_sentence(capsys):
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        raise InputError("gamma = 2 is out of range; it must be between 0 and 1")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: gamma = 2 is out of range; it must be between 0 and 1\n"


@pytest.mark.parametrize("fault", [lambda: np.zeros(3) + np.zeros(4), lambda: int("x"), lambda: {}["missing"]])
def test_every_other_error_keeps_its_traceback(fault):
    with pytest.raises((ValueError, KeyError)) as error, cli.sentences():
        fault()
    assert not isinstance(error.value, SystemExit)
