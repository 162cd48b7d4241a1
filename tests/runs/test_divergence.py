"""A gradient that is not finite is skipped and counted; too many of them, and the run goes back, once."""

import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import A2C, PPO, EnvConfig, Reinforce, Schedule, cli, make, program, replace, run
from jaxrl.reports.rows import read_metrics
from jaxrl.runs import Diverged
from jaxrl.runs.checkpoints import Checkpoints
from jaxrl.runs.divergence import counts, slower
from jaxrl.settings import config
from jaxrl.types import Algorithm, InputError, Program
from tests.helpers.compare import same_bytes
from tests.helpers.environments import Flawed

SMALL = {"env": EnvConfig(num_envs=4, eval_episodes=4), "total_steps": 4 * 16 * 24, "num_steps": 16}


@pytest.mark.parametrize(
    "config", [PPO(**SMALL, num_minibatches=2), A2C(**SMALL), Reinforce(num_steps=500)], ids=lambda c: type(c).__name__
)
def test_a_gradient_that_is_not_finite_leaves_everything_it_would_move_bitwise_unchanged(config):
    p = program(config)
    state = p.init(jax.random.key(0))
    state, _ = jax.jit(p.step)(state)  # so that the optimizer's moments are not zero
    batch = jax.jit(p.batch)(state)
    update = jax.jit(p.algorithm.update)
    worse = batch._replace(reward=jnp.full_like(batch.reward, jnp.nan))
    learner, metrics = update(jax.random.key(1), state.learner, worse)
    assert metrics["skipped_updates"].value == 1
    assert same_bytes((learner.params, learner.opt_state), (state.learner.params, state.learner.opt_state))
    assert learner.num_updates == state.learner.num_updates + 1
    learner, metrics = update(jax.random.key(1), state.learner, batch)
    assert metrics["skipped_updates"].value == 0
    assert not same_bytes(learner.params, state.learner.params)


class Poison(NamedTuple):
    """The learner of an algorithm whose gradients are poisoned, and the updates it has made."""

    inner: tuple
    made: jax.Array


@config
class Poisoned:
    """PPO of which updates number `first` and after are given rewards that are not finite, unless the key or the
    learning rate are others than at first.
    """

    inner: PPO = PPO(**SMALL, num_minibatches=2)
    learning_rate: float = 1e-3
    first: float = 1e9
    last: float = 1e9
    cured_below: float = 0.0

    def program(self) -> Program:
        p = program(replace(self.inner, learning_rate=self.learning_rate))
        algorithm = p.algorithm

        def update(key, learner, batch):
            ill = (learner.made >= self.first) & (learner.made <= self.last) & (self.learning_rate > self.cured_below)
            batch = batch._replace(reward=jnp.where(ill, jnp.nan, batch.reward))
            inner, metrics = algorithm.update(key, learner.inner, batch)
            return Poison(inner, learner.made + 1), metrics

        wrapped = Algorithm(
            lambda key: Poison(algorithm.init(key), jnp.zeros((), jnp.int32)),
            update,
            lambda learner, *rest: algorithm.policy(learner.inner, *rest),
        )
        inner = p.source

        def collect(key, learner, carry):
            return inner.collect(key, learner.inner, carry)

        return p._replace(algorithm=wrapped, source=inner._replace(collect=collect), evaluators=())


OFTEN = Schedule(logs=24, evals=0, saves=24)
STEP = 64


def test_one_such_update_is_counted_and_passed_over(tmp_path):
    result = run(Poisoned(first=3.0, last=3.0), 0, tmp_path / "run", schedule=OFTEN, progress=False)
    shares = [row["skipped_updates"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert shares == [0, 0, 0, 1] + [0] * 20
    assert result.figures["skipped_gradient_steps"] == 8, "four epochs of two minibatches"
    assert result.figures["invalid_steps_in_training"] == 0
    assert "went_back" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_too_many_and_the_run_goes_back_once_then_ends_with_status_3_and_what_can_be_replayed(tmp_path):
    ill = Poisoned(first=5.0)
    sentence = r"no gradient of the last 10 updates .*good checkpoint is of step 320; jaxrl.load_divergence"
    with pytest.warns(UserWarning, match="after 960 environment steps: going"), pytest.raises(Diverged, match=sentence):
        run(ill, 0, tmp_path / "run", schedule=OFTEN, progress=False)
    back = json.loads((tmp_path / "run" / "run.json").read_text())["went_back"]
    assert back["to"] == 5 * STEP and back["backoff"] == 1.0
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1] == 5 * STEP
    assert [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")][-1] == 15 * STEP
    with pytest.raises(SystemExit) as stopped, cli.sentences():
        run(ill, 0, tmp_path / "run", schedule=OFTEN, progress=False, resume=True)
    assert stopped.value.code == 3, "it does not go back twice, in another session either"

    p = program(ill)
    like = {"state": jax.eval_shape(p.init, jax.random.key(0))}
    like["batch"] = jax.eval_shape(p.batch, like["state"])
    dumped = Checkpoints(tmp_path / "run" / "diverged", read_only=True).restore(like)
    _, metrics = jax.jit(p.step)(dumped["state"])
    assert metrics["skipped_updates"].value == 1, "the next step fails as the last ones did"
    assert same_bytes(dumped["batch"], jax.jit(p.batch)(dumped["state"]))


def test_with_a_smaller_step_it_goes_on_and_a_resume_takes_the_same_one(tmp_path):
    ill = Poisoned(first=5.0, cured_below=6e-4)
    with pytest.warns(UserWarning, match="going back, once, to step 320"):
        whole = run(ill, 0, tmp_path / "run", schedule=OFTEN, progress=False, backoff=0.5)
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [STEP * n for n in range(1, 25)], "rows of what was undone are gone"
    assert rows[4]["learning_rate"] == pytest.approx(1e-3 * 20 / 24), "it falls to 0 along a line"
    assert rows[5]["learning_rate"] == pytest.approx(5e-4 * 19 / 24)
    saves = Checkpoints(tmp_path / "run" / "checkpoints")
    saves.set_aside([step for step in saves.steps() if step > 23 * STEP])
    again = run(ill, 0, tmp_path / "run", schedule=OFTEN, progress=False, resume=True)
    assert same_bytes(again.state, whole.state)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl") == rows


def test_a_smaller_step_needs_a_step():
    assert slower(PPO(), 0.5).learning_rate == PPO().learning_rate / 2

    @config
    class Without:
        gamma: float = 0.9

    with pytest.raises(InputError, match="backoff = 0.5: Without has no learning_rate to multiply"):
        slower(Without(), 0.5)


def test_an_environment_of_which_one_copy_is_flawed_still_teaches_and_what_it_gave_is_counted(tmp_path):
    env = Flawed.some(make("gymnax/CartPole-v1"), [0.05] + [0.0] * 63)
    shape = {"num_envs": 64, "env_axis": 0, "eval_episodes": 64}
    base = cli.named("ppo/cartpole")
    config = replace(base, env=replace(base.env, **shape), total_steps=409_600, num_minibatches=4)
    schedule = Schedule(logs=20, evals=1, saves=1)
    result = run(config, 0, tmp_path / "run", schedule=schedule, progress=False, env=env)
    assert result.figures["return"] >= 475
    # One copy's 6,400 steps. A step is bad with 0.05 and again with 0.05 (obs, reward), and so is the first of one in
    # twenty episodes, each of which ends there: about a tenth in all.
    assert 450 < result.figures["invalid_steps_in_training"] < 1100
    assert result.figures["skipped_gradient_steps"] == 0


def test_counts_by_hand():
    rows = [
        {"step": 0, "eval_return": 1.0},
        {"step": 100, "invalid_steps": 0.25, "skipped_updates": 0.5, "gradient_steps": 4.0},  # 25 and 5 * 2
        {"step": 300, "invalid_steps": 0.01, "skipped_updates": None},  # 2
    ]
    assert counts(rows, 20) == {"invalid_steps_in_training": 27, "skipped_gradient_steps": 10}


def test_a_language_model_passes_over_what_is_not_finite():
    from jaxrl.ops.optimizers import AdamW, adamw, adamw_step

    params = {"kernel": jnp.ones((3, 2)), "norm": jnp.ones(2)}
    optimizer = AdamW(learning_rate=1e-2)
    opt_state = adamw(optimizer).init(params)
    grads = jax.tree.map(jnp.ones_like, params)
    done = jnp.int32(5)
    params, opt_state, metrics = adamw_step(optimizer, params, opt_state, grads, done, 10)
    assert metrics["skipped_updates"].value == 0
    worse = {**grads, "norm": jnp.array([1.0, jnp.inf])}
    after, moved, metrics = adamw_step(optimizer, params, opt_state, worse, done + 1, 10)
    assert metrics["skipped_updates"].value == 1
    assert same_bytes((after, moved), (params, opt_state))
    assert np.isfinite(jax.tree.leaves(after)[0]).all()
