"""The table of a sweep, read back."""

import numpy as np
import pytest

from jaxrl.reports.sweep.table import read_table, shown
from jaxrl.types import InputError

HEAD = "member,config,seed,step,learning_rate,hidden,normalize,loss,score,diverged\n"
ROWS = '0,0,7,10,0.001,"64,64",true,nan,,0\n0,0,7,20,0.001,"64,64",true,-inf,1.5,0\n1,1,7,20,0.01,256,false,0.5,nan,1\n'


def test_types_come_back_and_not_measured_is_not_the_same_as_not_finite(tmp_path):
    (tmp_path / "table.csv").write_text(HEAD + ROWS)
    c, measured = read_table(tmp_path)
    assert c["step"].tolist() == [10, 20, 20] and c["step"].dtype == np.int64
    assert c["learning_rate"].tolist() == [0.001, 0.001, 0.01]
    assert c["hidden"].tolist() == ["64,64", "64,64", "256"] and c["normalize"].tolist() == [True, True, False]
    assert np.isnan(c["loss"][0]) and c["loss"][1:].tolist() == [-np.inf, 0.5]
    assert np.isnan(c["score"][[0, 2]]).all() and measured["score"].tolist() == [False, True, True]


def test_parts_are_joined_by_name_while_there_is_no_table_and_a_line_cut_short_is_left_out(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "0001.csv").write_text("member,config,seed,step,entropy,score,diverged\n2,2,7,10,0.5,3.0,0\n3,3,7,1")
    (parts / "0000.csv").write_text(HEAD + ROWS)
    (parts / "0002.csv").write_text("member,con")
    table = read_table(tmp_path)
    assert table.size == 4 and table.columns["member"].tolist() == [0, 0, 1, 2]
    assert table.measured["entropy"].tolist() == [False, False, False, True]
    assert table.columns["hidden"].tolist()[-1] == "" and not table.measured["loss"][-1]
    (tmp_path / "table.csv").write_text(HEAD)
    assert read_table(tmp_path).size == 0


def test_nothing_yet_is_no_rows(tmp_path):
    assert read_table(tmp_path).size == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("member,seed,step\n0,0,0\n", "has no column 'config'"),
        ("member,config,seed,step,x,x,diverged\n0,0,0,1,2,3,0\n", "has two columns 'x'"),
        ("member,config,seed,step,diverged\n0,0,0,1\n", "line 2 .* has 4 cells, and its header 5"),
        ("member,config,seed,step,diverged\n0,0,0,1.5,0\n", "step = '1.5' .* is no whole number"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, sentence):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_table(tmp_path)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.000464159, "0.0004642"),
        (1024.0, "1024"),
        (100000.0, "100000"),
        (True, "true"),
        ("64,64", "64,64"),
        (1e-9, "1e-09"),
    ],
)
def test_values_are_shown_as_a_person_would_type_them(value, expected):
    assert shown(value) == expected
