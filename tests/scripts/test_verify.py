"""scripts/verify.py, without its hours: what it keeps, and what it makes again."""

import runpy

import pytest

verify = runpy.run_path("scripts/verify.py", run_name="verify")


def test_what_has_ended_is_not_made_again_until_the_code_is_another(tmp_path, monkeypatch):
    out, made = tmp_path / "runs" / "verify.json", []

    def ending(ended):
        return lambda: made.append(ended) or {"ended": ended, "holds": ended}

    for _ in range(2):  # as two sessions
        kept = verify["Kept"](out)
        assert kept.get("cartpole 0", ending(True))["holds"]
        assert not kept.get("cartpole 1", ending(False))["holds"]
    assert made == [True, False, False], "one that did not end is made again"
    monkeypatch.setitem(verify["Kept"].__init__.__globals__, "git_revision", lambda: "another")
    verify["Kept"](out).get("cartpole 0", ending(True))
    assert made[3:] == [True]
    assert verify["Kept"](None).get("cartpole 0", ending(True))["holds"]


@pytest.mark.parametrize("names", [(), ("cartpole",)])
def test_an_unknown_check_is_a_sentence(names, capsys):
    assert verify["main"](names) == 2
    assert "unknown check" in capsys.readouterr().err
