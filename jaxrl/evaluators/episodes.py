"""Evaluation: exactly one episode per environment, with its own key, never touching training."""

from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxrl.envs import registry
from jaxrl.evaluators.hosted import play
from jaxrl.ops.masks import random_actions, zero_actions
from jaxrl.settings import EnvConfig, replace
from jaxrl.types import Algorithm, Evaluator, InputError, Key, Learner, Line, Panel, PyTree, TrainState, check_key

Behaviour = Literal["mode", "sample", "zero", "random"]
BEHAVIOURS = get_args(Behaviour)
_CASES = ("mode", "zero", "random")


class Evaluation(NamedTuple):
    """One entry per episode: its return, its length in steps, and the mean of each number in `info` over its steps;
    info["invalid"] is the share of its steps that gave numbers which are not finite."""

    episode_return: Float[Array, " N"]
    episode_length: Int[Array, " N"]
    info: dict[str, Float[Array, " N"]]


class _Running(NamedTuple):
    key: Key
    env_state: PyTree
    obs: PyTree
    first: Bool[Array, " N"]
    memory: PyTree
    active: Bool[Array, " N"]
    step: Int[Array, ""]
    sums: Evaluation


def evaluate(
    env: EnvConfig,
    algorithm: Algorithm,
    learner: Learner,
    key: Key,
    *,
    num_episodes: int = 128,
    behaviour: str | Int[Array, ""] = "mode",
    body: Any = None,
) -> Evaluation:
    """Play `num_episodes` episodes side by side, each to its end.

    Main arguments:
    env: which environment, with the time limit that bounds an episode.
    algorithm, learner: whose `policy` acts, and the learner it reads.
    Other arguments:
    behaviour: "mode" (deterministic), "sample", "zero" (the zero action) or "random" (uniform actions); or its number
    in BEHAVIOURS, which may be traced, so that one program serves all four.
    body: an Environment to use instead of the one that `env` names.
    Environments that live on the host are played by the host, not within a trace: env.num_envs at a time, and
    `behaviour` then is one of the words.
    Raises InputError for an unknown behaviour, for an environment without a time limit, and where one argument is
    another thing, such as a whole state for its learner.
    """
    call = "evaluate(config.env, program(config).algorithm, state.learner"
    right = isinstance(env, EnvConfig), hasattr(algorithm, "policy"), not isinstance(learner, TrainState)
    for name, given, fits in zip(("env", "algorithm", "learner"), (env, algorithm, learner), right, strict=True):
        if not fits:
            raise InputError(f"{name} is of type {type(given).__name__}; call {call}, key)")
    check_key(key, call)
    hosted = registry.on_host(env, body)
    num_envs = min(env.num_envs, num_episodes) if hosted else num_episodes
    vector = _limited(env, num_envs, body)
    choice = _number(behaviour)
    if hosted:
        return Evaluation(*play(vector, algorithm, learner, key, num_episodes, behaviour))

    def act(key: Key, run: _Running):
        memory, distribution = algorithm.policy(learner, run.memory, run.obs, run.first)
        spaces, like = vector.spaces, vector.action_space.zero()
        actions = (
            lambda: distribution.env_action(distribution.mode()),
            lambda: distribution.env_action(distribution.sample(key)),
            lambda: zero_actions(spaces, run.obs, num_episodes),
            lambda: random_actions(spaces, key, run.obs, num_episodes),
        )
        # One type for all four: a policy may compute in another precision than the space's.
        typed = [lambda action=action: action().astype(like.dtype) for action in actions]
        return memory, jax.lax.switch(choice, typed)

    def step(run: _Running) -> _Running:
        key, k_act, k_env = jax.random.split(run.key, 3)
        memory, action = act(k_act, run)
        env_state, obs, result = vector.step(k_env, run.env_state, action)
        seen = Evaluation(result.reward, jnp.ones(num_episodes, jnp.int32), _numbers(result.info))
        sums = jax.tree.map(lambda total, x: total + jnp.where(run.active, x, 0).astype(total.dtype), run.sums, seen)
        done = result.terminated | result.truncated
        return _Running(key, env_state, obs, done, memory, run.active & ~done, run.step + 1, sums)

    k_reset, key = jax.random.split(key)
    env_state, obs = vector.reset(k_reset)
    action = jax.vmap(lambda _: vector.action_space.zero())(jnp.arange(num_episodes))
    info = _numbers(jax.eval_shape(vector.step, key, env_state, action)[2].info)
    zeros = jnp.zeros(num_episodes)
    sums = Evaluation(zeros, zeros.astype(jnp.int32), {name: zeros for name in info})
    every, memory = jnp.ones(num_episodes, bool), algorithm.memory(num_episodes)
    start = _Running(key, env_state, obs, every, memory, every, jnp.zeros((), jnp.int32), sums)
    sums = jax.lax.while_loop(lambda run: jnp.any(run.active) & (run.step < vector.time_limit), step, start).sums
    return sums._replace(info=jax.tree.map(lambda x: x / sums.episode_length, sums.info))


def _limited(env: EnvConfig, num_envs: int, body: Any) -> Any:
    vector = registry.from_config(replace(env, num_envs=num_envs, resets="pool"), body)
    if vector.time_limit is None:
        name = env.name if body is None else registry.name_of(body)
        raise InputError(
            f"evaluating {name} needs a time limit, lest an episode never end; set env.time_limit (--time-limit)"
        )
    return vector


def whole_episodes(env: EnvConfig, algorithm: Algorithm, body: Any = None) -> Evaluator:
    """`env.eval_episodes` whole episodes of the deterministic policy; at the end those of the zero and of the random
    action too, for comparison: doing nothing scores well in some environments.
    """

    def measure(key: Key, learner: Learner, case: Int[Array, ""]) -> Evaluation:
        behaviour = jnp.asarray([BEHAVIOURS.index(name) for name in _CASES], jnp.int32)[case]
        return evaluate(env, algorithm, learner, key, num_episodes=env.eval_episodes, behaviour=behaviour, body=body)

    def read(case: str, measured: Evaluation) -> dict[str, float]:
        found = figures(measured)
        names = {"zero": "zero_action_return", "random": "random_return"}
        return {names[case]: found["return"]} if case in names else found

    def asked(key: Key, learner: Learner, case: Int[Array, ""]) -> tuple[Array, Learner]:
        _limited(env, 1, body)  # said while all is traced, before anything is written
        return jax.random.key_data(key), learner

    def played(case: str, measured: tuple[Any, Learner]) -> dict[str, float]:
        key, learner = jax.random.wrap_key_data(jnp.asarray(measured[0])), measured[1]
        episodes = env.eval_episodes
        return read(case, evaluate(env, algorithm, learner, key, num_episodes=episodes, behaviour=case, body=body))

    hosted = registry.on_host(env, body)
    returns = (
        Line("episode_return", "while training, actions sampled"),
        Line("eval_return", "evaluation, deterministic"),
    )
    lengths = (Line("episode_length", "while training"), Line("eval_episode_length", "evaluation"))
    return Evaluator(
        name="episodes",
        measure=asked if hosted else measure,
        read=played if hosted else read,
        cases=_CASES,
        brief=True,
        score=lambda found: found["return"],
        panels=(Panel("episode return", returns), Panel("episode length", lengths)),
        references={"zero action": "zero_action_return", "random actions": "random_return"},
    )


def figures(result: Evaluation) -> dict[str, float]:
    """Mean and standard deviation of the return, mean length, and the share of steps that were invalid;
    `forward_speed` in m/s of bodies that report an x_velocity: the mean over episodes of each one's mean speed."""
    returns, length = np.asarray(result.episode_return, np.float64), np.asarray(result.episode_length, np.float64)
    found = {
        "return": returns.mean().item(),
        "return_std": returns.std().item(),
        "episode_length": length.mean().item(),
        "invalid_steps": (np.asarray(result.info["invalid"], np.float64) * length).sum().item() / length.sum().item(),
    }
    if "x_velocity" in result.info:
        found["forward_speed"] = np.asarray(result.info["x_velocity"], np.float64).mean().item()
    return found


def _number(behaviour: str | Int[Array, ""]) -> Int[Array, ""]:
    if isinstance(behaviour, str):
        if behaviour not in BEHAVIOURS:
            raise InputError(f"behaviour = {behaviour!r} is not one of {', '.join(BEHAVIOURS)}")
        return jnp.asarray(BEHAVIOURS.index(behaviour), jnp.int32)
    return jnp.asarray(behaviour, jnp.int32)


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    own = ("episode_return", "episode_length")
    return {name: x for name, x in info.items() if name not in own and x.ndim == 1 and not jnp.iscomplexobj(x)}
