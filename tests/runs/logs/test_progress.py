"""What a run says where there is no terminal."""

from jaxrl import PPO, EnvConfig, Schedule, replace, run
from jaxrl.runs.logs import plain_lines


def test_evaluations_come_first_and_the_last_is_always_there():
    evals, logs = range(10, 101, 10), range(1, 101)
    chosen = plain_lines(evals, logs, 24)
    assert set(evals) <= chosen and len(chosen) == 24 and 100 in chosen
    assert max(b - a for a, b in zip(sorted(chosen), sorted(chosen)[1:], strict=False)) <= 10
    assert plain_lines(range(1, 1001), [], 4) == {250, 500, 750, 1000}
    assert plain_lines([], [5, 6], 24) == {5, 6} and plain_lines([], [], 24) == set()


def test_a_run_of_many_rows_writes_at_most_thirty_lines(tmp_path, capfd):
    config = PPO(env=EnvConfig(num_envs=4, eval_episodes=4), total_steps=4 * 16 * 120, num_steps=16, num_minibatches=2)
    run(config, 0, tmp_path / "run", schedule=Schedule(logs=120, evals=3, saves=1))
    lines = capfd.readouterr().err.splitlines()
    assert 20 < len(lines) <= 27, "the last line of an experiment, and what lies where, come after them"
    assert lines[-1].split()[0] == "7,680" and "jax" in lines[0]
    assert ", return in training " in lines[-1] and "nan" not in "".join(lines)


def test_where_no_episode_has_ended_there_is_no_number(tmp_path, capfd):
    config = PPO(env=EnvConfig("gymnax/Pendulum-v1", num_envs=4, eval_episodes=4), total_steps=64, num_steps=16)
    run(replace(config, num_minibatches=2), 0, tmp_path / "run", schedule=Schedule(logs=1, evals=0, saves=1))
    assert capfd.readouterr().err.splitlines()[-1].endswith("return in training –")
