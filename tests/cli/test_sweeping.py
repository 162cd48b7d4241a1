"""`jaxrl sweep`, and `jaxrl resume` of a sweep: from words, or a file, to a table."""

import json
import shutil

import jax
import pytest

from jaxrl.cli import command
from jaxrl.sweeps import learning as learning_module
from jaxrl.sweeps.table import read
from tests.cli.test_command import helped, refused

SMALL = "--num-envs 4 --num-steps 8 --total-steps 320 --num-minibatches 2 --hidden 8 --eval-episodes 4 --time-limit 40"
QUICK = "--logs 2 --evals 1 --saves 2"
WORDS = ["ppo/cartpole", *SMALL.split(), *QUICK.split()]
FILE = """
base: ppo/cartpole
algorithm: {num_steps: 8, total_steps: 320, num_minibatches: 2, hidden: [8]}
env: {num_envs: 4, eval_episodes: 4, time_limit: 40}
sweep:
  learning-rate: log:1e-3:1e-2:2
  hidden: [[8], [8, 8]]
plan:
  seeds: 100:102
  schedule: {logs: 2, evals: 1, saves: 2}
"""


@pytest.fixture(autouse=True)
def begun():
    """JAX, before the command line could have it take each core for a device."""
    return jax.devices()


def said(capsys, *argv):
    capsys.readouterr()
    command.main([str(word) for word in argv])
    *lines, last = capsys.readouterr().out.splitlines()
    return lines, json.loads(last)


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("sweep") / "ended"
    jax.devices()
    words = "--sweep.learning-rate=1e-3,1e-2 --sweep.hidden 8;8,8 --seeds 2".split()
    command.main(["sweep", *WORDS, *words, "--run-dir", str(run_dir)])
    return run_dir


def test_fields_are_named_with_hyphens_and_equals_signs_or_without(ended):
    rows = read(ended / "table.csv")
    assert {(row["learning_rate"], row["hidden"]) for row in rows} == {
        (rate, hidden) for rate in ("0.001", "0.01") for hidden in ("8", "8,8")
    }
    about = json.loads((ended / "sweep.json").read_text())
    assert (about["num_configs"], about["num_seeds"], about["total_steps"]) == (4, 2, 320)


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("100:103", [100, 101, 102]), ("3,5,8", [3, 5, 8]), ("8:9", [8])]
)
def test_seeds_are_a_number_or_a_range_or_a_list(tmp_path, monkeypatch, text, seeds):
    class Asked(Exception):
        pass

    def asked(config, fields, plan, *rest, **options):
        raise Asked(list(range(plan.seeds)) if isinstance(plan.seeds, int) else list(plan.seeds))

    monkeypatch.setattr("jaxrl.cli.sweeping.run_sweep", asked)
    with pytest.raises(Asked) as found:
        command.main(["sweep", *WORDS, "--seeds", text])
    assert found.value.args[0] == seeds


def test_a_dry_run_says_what_it_would_take_and_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines, told = said(capsys, "sweep", *WORDS, "--sweep.hidden", "8;16", "--sweep.gamma", ".9,.99", "--dry-run")
    assert not lines and not any(tmp_path.iterdir())
    assert (told["members"], told["batches"], told["compilations"]) == (4, 2, 2)
    assert told["forecast_seconds"] > 0 and told["forecast_mib"] > 0


def test_a_file_says_all_of_it_and_words_change_it(ended, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(FILE)
    lines, told = said(capsys, "sweep", file, "--run-dir", tmp_path / "a", "--seeds", "2")
    assert told["members"] == 8
    a = tmp_path / "a"
    assert lines[:3] == [
        f"table       {a / 'table.csv'}",
        f"report      jaxrl report {a}",
        f"best        {a}/best.yaml",
    ]
    assert lines[3].startswith("verdict     ") and "does not separate" in lines[3] and len(lines) == 4
    assert (tmp_path / "a" / "table.csv").read_bytes() == (ended / "table.csv").read_bytes()
    said(capsys, "sweep", file, "--run-dir", tmp_path / "b", "--sweep.learning-rate", "1e-3", "--sweep.hidden=8")
    assert {(row["seed"], row["learning_rate"]) for row in read(tmp_path / "b" / "table.csv")} == {
        ("100", "0.001"),
        ("101", "0.001"),
    }


def test_a_file_may_hold_the_config_itself_and_sweep_seeds_alone(ended, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(
        (ended / "config.yaml").read_text()
        + f"plan: {{seeds: [3, 5], schedule: {{logs: 1}}, tensorboard: true, run_dir: {tmp_path / 'a'}}}\n"
    )
    assert said(capsys, "sweep", file)[1]["members"] == 2
    assert {row["seed"] for row in read(tmp_path / "a" / "table.csv")} == {"3", "5"}
    assert sorted(path.name for path in (tmp_path / "a" / "tensorboard").iterdir()) == ["0000 seed=3", "0001 seed=5"]


def test_one_that_was_stopped_is_resumed_from_its_directory(ended, tmp_path, monkeypatch, capsys):
    advance, pieces = learning_module.Learning._advance, []

    def stopping(self, mark):
        pieces.append(mark)
        if len(pieces) == 3:
            self.interrupts.asked = "SIGTERM"
        advance(self, mark)

    words = "--sweep.learning-rate=1e-3,1e-2 --sweep.hidden 8;8,8 --seeds 2".split()
    with monkeypatch.context() as patch:
        patch.setattr(learning_module.Learning, "_advance", stopping)
        patch.setattr("os._exit", lambda status: (_ for _ in ()).throw(SystemExit(status)))
        with pytest.raises(SystemExit) as stop:
            command.main(["sweep", *WORDS, *words, "--run-dir", str(tmp_path / "a")])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert not stop.value.code and told["stopped"].endswith(f"jaxrl resume {tmp_path / 'a'} goes on with it")
    assert said(capsys, "resume", tmp_path / "a")[1]["members"] == 8
    assert (tmp_path / "a" / "table.csv").read_bytes() == (ended / "table.csv").read_bytes()


def test_one_that_had_ended_says_so_and_stays_as_it_is(ended, capsys):
    before = {path: path.stat().st_mtime_ns for path in ended.rglob("*")}
    lines, figures = said(capsys, "resume", ended)
    assert lines == [f"{ended} had ended: these are its figures"]
    assert figures == json.loads((ended / "sweep.json").read_text())["result"]
    assert {path: path.stat().st_mtime_ns for path in ended.rglob("*")} == before


def test_one_that_was_given_objects_of_python_is_not_resumed_from_the_command_line(ended, tmp_path, capsys):
    mine = shutil.copytree(ended, tmp_path / "a")
    about = json.loads((mine / "sweep.json").read_text())
    about["asked"]["given"] = {"env": {"is": "mine:Maze", "sha256": ""}}
    (mine / "sweep.json").write_text(json.dumps(about))
    assert "was given env (mine:Maze) as objects of Python; resume it from there" in refused(capsys, "resume", mine)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name a config first, as in ppo/cartpole; there are sft, reward, dpo, kto, a2c/acrobot"),
        (("ppo/cartpol",), "did you mean 'ppo/cartpole'"),
        (("ppo/cartpole", "--sweep.learning-rat", "1"), "unknown field learning_rat of PPO; did you mean"),
        (("ppo/cartpole", "--sweep.gamma"), "--sweep.gamma needs values, all in one word, as in --sweep.gamma 1e-4"),
        (("ppo/cartpole", "--sweep.gamma", ".9", ".99"), "needs values, all in one word, as in --sweep.gamma .9,.99"),
        (("ppo/cartpole", "--sweep.gamma", "[.9,.99]"), "sweep.gamma = '[.9,.99]' cannot be read; give values apart"),
        (("ppo/cartpole", "--sweep.gamma", "--seeds", "4"), "--sweep.gamma needs values"),
        (("ppo/cartpole", "--sweep.gamma="), "sweep.gamma = '' cannot be read; give values apart by commas"),
        (("ppo/cartpole", "--sweep.clip-eps", "1", "--sweep.clip_eps", "2"), "--sweep.clip_eps is given twice"),
        (("ppo/cartpole", "--sweep.clip-eps", "-.5,.1"), "(clip_eps = -0.5): clip_eps = -0.5 is out of range"),
        (("ppo/cartpole", "--seeds", "1-4"), 'seeds = \'1-4\' cannot be read; write "16", "100:148" or "3,5,8"'),
        (("ppo/cartpole", "--seeds", "4:1"), "seeds = (): name at least one"),
        (("ppo/cartpole", "--sweep.gamma", "lin:.9:1"), "is a range without a count; say how many, lin:.9:1:8"),
        (("ppo/cartpole", "--resume"), "resume needs the run_dir of the sweep to go on with"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    said = refused(capsys, "sweep", *words)
    assert sentence in said and said.startswith("error: ") and len(said.splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("seeds:", "sedes:"), "unknown field plan.sedes of SweepOptions; did you mean 'seeds'"),
        (("logs:", "log:"), "unknown field plan.schedule.log of Schedule; did you mean 'logs'"),
        (("schedule: {logs: 2, evals: 1, saves: 2}", "schedule: 2"), "plan.schedule = 2 cannot be read"),
        (("seeds: 100:102", "seeds: {a: 1}"), "plan.seeds = {'a': 1} cannot be read"),
        (("seeds: 100:102", "seeds: 1-2"), "seeds = '1-2' cannot be read"),
        (("base: ppo/cartpole", "base: ppo/cartpol"), "did you mean 'ppo/cartpole'"),
        (("base: ppo/cartpole", ""), "algorithm.name = None is not one of"),
        (("num_steps:", "num_step:"), "unknown field num_step of PPO; did you mean 'num_steps'"),
        (("num_steps: 8", "num_envs: 8"), "num_envs belongs to the section `env:`"),
        (("env:", "envs:"), "has a section `envs:`, which nothing reads; its sections are `base:`, `sweep:`, `plan:`"),
        (("time_limit: 40", "time_limit: forty"), "env.time_limit = 'forty' is of the wrong type"),
        (("sweep:", "sweep: 3\nplan2:"), "sweep = 3 should be a section with fields of its own"),
        (("learning-rate:", "learning-rat:"), "unknown field learning_rat of PPO"),
        (("learning-rate:", "hidden:"), "hidden is given twice in one section"),
    ],
)
def test_a_mistake_in_a_file_is_a_sentence(tmp_path, monkeypatch, capsys, change, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(FILE.replace(*change))
    said = refused(capsys, "sweep", "mine.yaml")
    assert sentence in said and len(said.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_an_empty_file_is_no_config(tmp_path, capsys):
    (tmp_path / "mine.yaml").touch()
    assert "must have a section `algorithm:`" in refused(capsys, "sweep", tmp_path / "mine.yaml")


def test_less_is_better_with_a_hyphen(tmp_path, monkeypatch):
    """Which is no option, in words and in a file."""
    plans = []
    monkeypatch.setattr("jaxrl.cli.sweeping.run_sweep", lambda config, fields, plan, **more: plans.append(plan))
    monkeypatch.setattr("jaxrl.cli.sweeping._tell", lambda found: None)
    (tmp_path / "s.yaml").write_text("base: ppo/cartpole\nplan: {score: -eval_return_std}\n")
    command.main(["sweep", "ppo/cartpole", "--score", "-eval_return_std", "--seeds", "2"])
    command.main(["sweep", "ppo/cartpole", "--score=-eval_return_std"])
    command.main(["sweep", str(tmp_path / "s.yaml")])
    assert [plan.score for plan in plans] == ["-eval_return_std"] * 3 and plans[0].seeds == 2


def test_seeds_in_a_file_are_no_hours_and_minutes(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(FILE.replace("100:102", "10:12"))
    assert said(capsys, "sweep", tmp_path / "mine.yaml", "--dry-run")[1]["members"] == 8


def test_a_directory_that_holds_something_is_left_alone(ended, tmp_path, capsys):
    assert "already holds a sweep; pass resume=True (--resume) to go on with it" in refused(
        capsys, "sweep", *WORDS, "--run-dir", ended
    )
    (tmp_path / "run.json").write_text("{}")
    assert "already holds a run; name another run_dir" in refused(capsys, "sweep", *WORDS, "--run-dir", tmp_path)
    assert "was begun with fields.learning_rate = " in refused(capsys, "sweep", *WORDS, "--run-dir", ended, "--resume")


def test_help_tells_how_to_write_a_sweep_and_its_options(capsys):
    short, long = helped(capsys, "sweep", "--help"), helped(capsys, "sweep", "ppo/cartpole", "--help")
    for text in (short, long):
        lines = text.splitlines()
        assert '    jaxrl sweep ppo/cartpole --sweep.hidden "64,64;256,256" --total-steps 102400' in lines
        assert "    sweep: {learning_rate: log:1e-4:1e-2:8, hidden: [[64, 64], [256]]}" in [x.rstrip() for x in lines]
    assert "ppo/acrobot" in short and "--seeds" in long and "--dry-run" in long and "--gae-lambda" in long


def test_a_member_is_played_and_drawn_and_written_out(ended, tmp_path, capsys):
    lines, told = said(capsys, "evaluate", ended, "--member", 5, "--episodes", 8)
    assert lines[0] == "member      5 (config 2, seed 1, learning_rate = 0.01, hidden = 8)"
    assert (told["env_steps"], told["episodes"]) == (320, 8)
    best, _ = said(capsys, "evaluate", ended, "--episodes", 2)
    about = json.loads((ended / "sweep.json").read_text())
    assert f"(config {about['result']['best']}, " in best[0]
    said(capsys, "export", ended, tmp_path / "policy", "--member", 5)
    policy = json.loads((tmp_path / "policy" / "policy.json").read_text())
    assert (policy["run"]["seed"], policy["network"]["layers"]) == (1, [4, 8, 2])
    assert "learning_rate: 0.01" in (tmp_path / "policy" / "config.yaml").read_text()
    assert said(capsys, "render", ended, "--member", 5, "--out", tmp_path / "a.gif")[1]["episode_length"] > 0
    assert "member = 8 is not in" in refused(capsys, "evaluate", ended, "--member", 8)
    assert "of a member of a sweep the newest is kept" in refused(capsys, "render", ended, "--checkpoint", "best")
