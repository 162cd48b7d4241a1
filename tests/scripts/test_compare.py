"""What scripts/compare.py makes of its figures, and its dealings with arms; no peer is needed."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tyro

SCRIPTS = Path(__file__).parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))
import compare  # noqa: E402
from peers.arithmetic import Interval, interval, median_or_unsolved, paired  # noqa: E402
from peers.bench import Bench, cells  # noqa: E402
from peers.environments import NotMeasured, given, python_of  # noqa: E402
from peers.processes import last_words, watch  # noqa: E402
from peers.report import markdown, show  # noqa: E402
from peers.settings import CARTPOLE, ZOO, ZOO_STEPS, options  # noqa: E402
from peers.solving import row  # noqa: E402


def test_a_round_sets_the_mean_of_ours_against_theirs():
    # rounds: sqrt(4 · 9) / 3 = 2; 6 / 2 = 3; sqrt(1 · 4) / 1 = 2
    ratio = paired([(4.0, 9.0), (6.0, 6.0), (1.0, 4.0)], [3.0, 2.0, 1.0])
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 3.0)
    # a repeat: 9/4 = 2.25, 1, 4; so the first (2 <= 2.25) and the third (2 <= 4) say nothing
    assert (ratio.repeat, ratio.void, ratio.rounds) == (2.25, 2, 3)
    assert ratio.says == "void"


@pytest.mark.parametrize(
    ("ours", "theirs", "says"),
    [
        ([(110.0, 110.0)] * 3, [100.0] * 3, "faster"),
        ([(100.0, 101.0)] * 3, [120.0] * 3, "slower"),
        ([(100.0, 106.0)] * 3, [100.0] * 3, "void"),  # 3 % apart, where a repeat is 6 %
        ([(100.0, 94.0)] * 3, [99.0] * 3, "void"),  # a repeat that is slower is as bad
        ([(100.0, 100.0)] * 3, [100.0] * 3, "void"),  # equal
        ([(110.0, 110.0)] * 2, [100.0] * 2, "too few rounds"),
        ([(110.0, 110.0)] * 2 + [(110.0, 150.0)] * 2, [100.0] * 2 + [127.0] * 2, "void"),  # half of the rounds
    ],
)
def test_what_a_ratio_says(ours, theirs, says):
    assert paired(ours, theirs).says == says


def test_a_drift_favours_nobody():
    # The machine loses a hundredth of its speed with every call; the arms are equal.
    speeds = 100 * 0.99 ** np.arange(9)
    ratio = paired([(speeds[i], speeds[i + 2]) for i in (0, 3, 6)], [speeds[i] for i in (1, 4, 7)])
    assert ratio.median == pytest.approx(1.0)


def test_interval_of_a_mean():
    # mean 2, standard deviation 1, so ± 4.302653 / √3, by the table of Student's t with two degrees of freedom
    found = interval([1.0, 2.0, 3.0])
    assert found == pytest.approx((2.0, 2 - 2.484138, 2 + 2.484138), abs=1e-5)
    assert interval([500.0, 500.0]) == (500.0, 500.0, 500.0)
    assert interval([7.0]) == (7.0, -math.inf, math.inf)


def test_overlap_is_mutual_and_includes_the_ends():
    a, b, c = Interval(2.0, 1.0, 3.0), Interval(4.0, 3.0, 5.0), Interval(6.0, 5.5, 6.5)
    assert a.overlaps(b) and b.overlaps(a)
    assert not a.overlaps(c) and not c.overlaps(a)


def test_a_run_that_was_not_solved_counts_as_the_longest():
    assert median_or_unsolved([3.0, None, 1.0]) == 3.0
    assert median_or_unsolved([3.0, None, None]) is None
    solved = {"solved": True, "seconds": 3.0, "train_seconds": 2.0, "cpu_seconds": 4.0, "steps": 10}
    unsolved = {"solved": False, "seconds": None}
    assert row("sb3", [solved, unsolved, solved])[1:3] == ("2 of 3", "3.0")
    assert row("sb3", [solved, unsolved, unsolved])[1:3] == ("1 of 3", "not reached")
    assert row("sb3", [unsolved])[1:3] == ("0 of 1", "not reached")
    assert row("sb3", [])[1] == "not measured"


def test_given_pythons():
    assert given(("rejax=/a/python", "sb3=b=c")) == {"rejax": "/a/python", "sb3": "b=c"}
    for wrong in ("rejax", "rejax=", "nobody=/a/python"):
        with pytest.raises(ValueError, match="ARM=PYTHON"):
            given((wrong,))


def test_command_line():
    asked = tyro.cli(
        compare.Throughput | compare.Learning | compare.Solve | compare.Humanoid,
        args="throughput --env rejax=p sb3=q --cores 1 --num-envs 4 64 --agents 0 --rounds 3".split(),
    )
    assert isinstance(asked, compare.Throughput)
    assert (asked.env, asked.cores, asked.num_envs) == (("rejax=p", "sb3=q"), (1,), (4, 64))


def test_settings_are_options_of_jaxrl():
    words = options(ZOO, ZOO_STEPS)
    assert words[words.index("--learning-rate") + 1] == "0.001"
    assert words[words.index("--total-steps") + 1] == "100096" and ZOO_STEPS % (8 * ZOO["num_steps"]) == 0
    assert "--value-clip" not in words and "--hidden" not in words
    from jaxrl import PPO

    PPO(**{**CARTPOLE, "hidden": (64, 64)})  # the names are jaxrl's


def test_an_arm_that_cannot_be_is_a_line_and_a_row(tmp_path, capsys):
    bench = Bench({"rejax": str(tmp_path / "none")}, tmp_path, None, {})
    assert bench.start("rejax", {}) is None and bench.start("purejaxrl", {}) is None
    said = capsys.readouterr().err
    assert "rejax: not measured: there is no" in said and "--purejaxrl FOLDER" in said
    assert cells({"jaxrl": []}, "rejax")[0] == "not measured"
    with pytest.raises(NotMeasured):
        python_of("sb3", {"sb3": str(tmp_path / "none")}, tmp_path)


def test_an_arm_answers_and_its_end_is_told(tmp_path, monkeypatch):
    arms = tmp_path / "scripts" / "peers" / "arms"
    arms.mkdir(parents=True)
    (arms / "worker.py").write_text((SCRIPTS / "peers" / "arms" / "worker.py").read_text())
    (arms / "rejax_arm.py").write_text(
        "from worker import serve\n"
        "print('a library that talks')\n"
        "serve(lambda question: lambda n: {'steps': question['of'][n]})\n"
    )
    monkeypatch.setattr("peers.processes.ROOT", tmp_path)
    bench = Bench({"rejax": sys.executable}, tmp_path, None, {})
    worker = bench.start("rejax", {"of": [5, 7]})
    try:
        assert bench.about["rejax"]["packages"] and worker.ready["prepare_seconds"] >= 0
        assert [worker.ask(n)["steps"] for n in (0, 1)] == [5, 7]
        with pytest.raises(NotMeasured, match="IndexError: list index"):
            worker.ask(2)
    finally:
        worker.close()


def test_watching_a_run_until_it_is_good_enough(tmp_path):
    folder = tmp_path / "run"
    script = (
        f"import json, pathlib, time; d = pathlib.Path({str(folder)!r}); d.mkdir()\n"
        "for name, rows in (('timing', [0.5, 1.5, 2.5]), ('metrics', [None, 480.0, 490.0])):\n"
        "    key = 'train_seconds' if name == 'timing' else 'eval_return'\n"
        "    (d / f'{name}.jsonl').write_text(''.join(json.dumps({'step': i, key: x}) + '\\n' "
        "for i, x in enumerate(rows)))\n"
    )
    command = [sys.executable, "-c", script]
    found = watch(command, folder, "eval_return", 475.0, 60.0, {})
    assert (found["step"], found["value"], found["train_seconds"]) == (1, 480.0, 1.5) and found["seconds"] > 0
    assert watch([sys.executable, "-c", "pass"], tmp_path / "none", "eval_return", 475.0, 60.0, {}) is None
    with pytest.raises(NotMeasured, match="ZeroDivisionError"):
        watch([sys.executable, "-c", "1 / 0"], tmp_path / "bad", "eval_return", 475.0, 60.0, {})


def test_what_went_wrong_in_a_line(tmp_path):
    log = tmp_path / "log"
    log.write_text("Traceback\njax.errors.JaxError: the cause\n  File x\n-----\nFor simplicity, frames are left out\n")
    assert last_words(log) == "jax.errors.JaxError: the cause"
    log.write_text("")
    assert last_words(log) == "nothing was said"


def test_report(tmp_path, capsys):
    about = {"python": "3.11", "cores": 1, "threads": {"torch": 1}, "packages": {"stable_baselines3": "2", "odd": "1"}}
    out = tmp_path / "new" / "figures.json"
    show([("Title", ("a", "b"), [("1", "2")])], {"load": 0.1}, {"sb3": about}, {"x": 1}, out, out.with_suffix(".md"))
    kept, text = json.loads(out.read_text()), out.with_suffix(".md").read_text()
    assert kept["x"] == 1 and kept["arms"]["sb3"]["packages"]["odd"] == "1"
    assert markdown(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert "| 1 | 2 |" in text and "sb3: Python 3.11, stable-baselines3 2, 1 core(s), torch 1" in text
    assert "Title" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["throughput", "--rounds", "0"], "--rounds 0: give at least 1"),
        (["learning", "--seeds", "0"], "--seeds 0"),
        (["throughput", "--purejaxrl", "nowhere"], "--purejaxrl nowhere: there is no nowhere/purejaxrl/ppo.py"),
        (["solve", "--env", "foo=bar"], "--env foo=bar is not ARM=PYTHON"),
    ],
)
def test_what_would_measure_nothing_is_refused_first(options, sentence):
    script = [sys.executable, SCRIPTS / "compare.py"]
    done = subprocess.run([*script, *options], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2 and f"error: {sentence}" in done.stderr
