"""Builds the Program of a config: `control_program` for those that learn by acting, `language_program` for those that
learn from rows. An algorithm's file tells the algorithm; this tells what it runs in and how it is judged.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.data.arrays import Data
from jaxrl.data.fingerprints import fingerprint
from jaxrl.data.prompts import first_rows
from jaxrl.data.settings import Loop
from jaxrl.envs import registry
from jaxrl.envs.bodies import check_bodies
from jaxrl.envs.check import check_environment
from jaxrl.evaluators import Ask, held_out_rows, judged_completions, sampled_completions, told, whole_episodes
from jaxrl.lm.layout import laid_out
from jaxrl.lm.lora import trained
from jaxrl.lm.pretrained.assets import cache
from jaxrl.lm.reference import with_reference
from jaxrl.lm.sampling import check_prompts
from jaxrl.lm.text.tokenizer import Tokenizer
from jaxrl.lm.transformer import LanguageModel, ModelConfig
from jaxrl.lm.vocabulary import check_ids
from jaxrl.networks import check_distribution
from jaxrl.settings import replace
from jaxrl.sources import at_own_width, batches, batches_per_epoch, completions
from jaxrl.sources.rewards import TextReward
from jaxrl.sources.sampled import Completed, Reward, Sampler
from jaxrl.types import Algorithm, InputError, Metrics, Network, Params, Program, Unit

ENV_STEPS = Unit("env_steps", "environment steps")
ROWS_SEEN = Unit("rows_seen", "rows")
COMPLETIONS = Unit("completions", "completions")


def control_program(config: Any, env: Any = None, network: Network | None = None) -> Program:
    """Learning by acting: the program of a config that has `env` (EnvConfig), `total_steps`, `num_steps`,
    make(spaces, network) -> Algorithm and source(vector_env, algorithm) -> Source.

    env: an Environment to use instead of the one that `config.env` names. network: instead of the config's own.
    Raises InputError for an environment that breaks its contract; its check for a policy that does not fit its spaces.
    """
    if env is not None:
        check_environment(env, config.env.env_axis)
        check_bodies(config.env, env)
    vector_env = registry.from_config(config.env, env)
    algorithm = config.make(vector_env.spaces, network)
    name = config.env.name if env is None else registry.name_of(env)
    return Program(
        algorithm,
        config.source(vector_env, algorithm),
        total_steps=config.total_steps,
        steps_per_update=config.env.num_envs * config.num_steps,
        unit=ENV_STEPS,
        evaluators=(whole_episodes(config.env, algorithm, env),),
        headline={"return": ("eval_return",), "return in training": ("episode_return",)},
        label=f"{name.replace('/', '-').replace(':', '-')}_{type(config).__name__.lower()}",
        # What the object holds beside its name is in no config, and options of the one it replaces are not its own.
        overrides={} if env is None else {"env.name": name, "env.options": {}, "env.backend": None},
        check=lambda: _check_policy(algorithm, vector_env),
    )


def _check_policy(algorithm: Algorithm, vector_env: Any) -> None:
    n, spaces = vector_env.num_envs, vector_env.spaces

    def act(key: jax.Array) -> Any:
        obs = jax.tree.map(lambda space: jnp.zeros((n, *space.shape), space.dtype), spaces.observation)
        return algorithm.policy(algorithm.init(key), algorithm.memory(n), obs, jnp.ones(n, bool))[1]

    # Before anything is compiled: a distribution of another width than the action's trains on broadcast nonsense.
    check_distribution(jax.eval_shape(act, jax.random.key(0)), spaces.action, (n,))


def language_program(
    config: Any,
    network: LanguageModel | None,
    params: Params | None,
    data: Data | None,
    samples: Ask | None = None,
    *,
    check_start: Callable[[dict[str, float]], None] | None = None,
    tell: Callable[[Metrics], dict[str, float]] = told,
    keep: Callable[[Metrics], list[dict[str, float]]] | None = None,
    scores: bool = False,
) -> Program:
    """Learning from rows: the program of a config that has `lm`, `data`, `loop`, check_data(data) and make(model,
    params, num_updates) -> Algorithm whose learner has `trained`.

    network: a LanguageModel. params: its pretrained parameters. data: rows as arrays. samples: prompts to complete at
    every evaluation. check_start, keep: as in Evaluator. tell: as for `held_out_rows`. scores: whether the parameters
    may be a reward model's. Raises InputError where they may not, for what is missing, and as check_data does.
    """
    if network is None or params is None or data is None:
        missing = "learns from data; give network, params and data, or call `finetune` (`jaxrl finetune`)"
        raise InputError(f"{type(config).__name__} {missing}")
    if getattr(params, "score", None) is not None and not scores:
        raise InputError(f"lm.name = {config.lm.name!r} is a reward model, which does not speak; name one that does")
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(data)):
        config.check_data(data)
        check_rows(network.config, data)
    loop, tuned = config.loop, trained(config.lm, params)
    updates = _updates(loop, batches_per_epoch(data.train, loop.batch_size))
    algorithm = config.make(network, params, updates)
    evaluators = [held_out_rows(algorithm, data, loop.batch_size, check_start, tell, keep)]
    if samples is not None:
        evaluators.append(sampled_completions(network, params, lambda learner: tuned.model(learner.trained), samples))
    made = Program(
        algorithm._replace(update=at_own_width(algorithm.update, data.train)),
        batches(data.train, loop.batch_size),
        total_steps=updates * loop.batch_size,
        steps_per_update=loop.batch_size,
        unit=ROWS_SEEN,
        evaluators=tuple(evaluators),
        headline={"loss": ("loss",), "held out": ("eval_loss",)},
        label=f"{config.lm.name.rstrip('/').split('/')[-1]}_{type(config).__name__.lower()}",
        export=lambda learner: tuned.merged(learner.trained),
        adapters=lambda learner: learner.trained,
    )
    return laid_out(config, network.config, made)


def _updates(loop: Loop, per_epoch: int) -> int:
    """How many a run makes. Warns where the rows are gone through before `max_updates` are made."""
    updates = loop.epochs * per_epoch
    if loop.max_updates is None or loop.max_updates <= updates:
        return loop.max_updates or updates
    warnings.warn(
        f"max_updates = {loop.max_updates}, and epochs = {loop.epochs} of {per_epoch} updates each end before; give "
        f"epochs = {-(-loop.max_updates // per_epoch)} for that many",
        stacklevel=3,
    )
    return updates


def completion_program(
    config: Any,
    network: LanguageModel | None,
    params: Params | None,
    data: Data | None,
    reward: Reward | TextReward | None,
    stop: Sequence[int] | None,
    tokenizer: Tokenizer | None,
    told: Callable[[Completed], Metrics],
) -> Program:
    """Learning from completions of its own: the program of a config that has `lm`, `data`, `loop`, `sampling`,
    `per_prompt`, `eval_prompts`, `kl_coef`, policy(params) -> Trained and make(model, params, num_updates) -> Algorithm
    whose learner has `trained.policy`.

    network, params: as for `language_program`. data: PromptRows. reward: of tokens or of texts. stop: tokens that end a
    completion; by default the tokenizer's. tokenizer: to keep texts. told: metrics of completions. Raises InputError
    for what is missing, and for prompts that leave no room.
    """
    if network is None or params is None or data is None or reward is None:
        missing = "learns from a reward; give network, params, data and reward, or call `finetune` with reward="
        raise InputError(f"{type(config).__name__} {missing}")
    loop, tuned, sampling = config.loop, config.policy(params), config.sampling.options()
    for prompts in data.train + data.held_out:
        check_prompts(network, prompts.tokens, prompts.length, sampling["max_new_tokens"])
    num_prompts = loop.batch_size // config.per_prompt
    updates = _updates(loop, batches_per_epoch(data.train, num_prompts))
    stop = sorted(tokenizer.stops) if stop is None and tokenizer is not None else stop or ()
    host = reward.score if isinstance(reward, TextReward) else None
    sampler = Sampler(
        network,
        params,
        sampling,
        tuple(stop),
        None if host else reward,
        loop.micro_batch_size,
        config.lm.logit_chunk,
    )

    def params_of(learner: Any) -> tuple[Params, Params]:
        return tuned.merged(learner.trained.policy), tuned.model(learner.trained.policy)

    def score(figures: dict[str, float]) -> float:
        return figures["reward"] - float(config.kl_coef) * figures["kl"]

    held_out = first_rows(data.held_out or data.train, config.eval_prompts)
    made = Program(
        config.make(network, params, updates),
        completions(sampler, params_of, data.train, num_prompts, config.per_prompt)._replace(host=host),
        total_steps=updates * loop.batch_size,
        steps_per_update=loop.batch_size,
        unit=COMPLETIONS,
        evaluators=(judged_completions(sampler, params_of, held_out, told, score, host, tokenizer),),
        headline={"reward": ("eval_reward", "reward"), "KL": ("eval_kl", "kl")},
        label=f"{config.lm.name.rstrip('/').split('/')[-1]}_{type(config).__name__.lower()}",
        export=lambda learner: tuned.merged(learner.trained.policy),
        adapters=lambda learner: learner.trained.policy,
    )
    return laid_out(config, network.config, made)


def check_rows(model: ModelConfig, data: Data) -> None:
    """Raises InputError for rows that the model cannot take: beyond its vocabulary, or its context."""
    for b, rows in enumerate(data.train + data.held_out):
        for side in (rows,) if hasattr(rows, "tokens") else rows:
            tokens, length = np.asarray(side.tokens), np.asarray(side.length).reshape(-1)
            tokens = tokens.reshape(len(length), -1)  # those of a group one after the other
            inside = np.where(np.arange(tokens.shape[1]) < length[:, None], tokens, 0)
            for i in {int(length.argmax()), int(inside.max(axis=1).argmax())}:
                check_ids(tokens[i, : length[i]], model, f"row {i + 1} of bucket {b + 1}")


def with_cached_reference(config: Any, model: LanguageModel, params: Params, data: Data) -> Data:
    """The rows with their log-probs under the model before training, where `config.reference` is "cached": read from a
    file, or computed now and kept in one, under a hash of all that they depend on.
    """
    if config.reference != "cached":
        return data
    replace(config, reference="frozen", reference_cache="").check_data(data)  # before hours of scoring
    at_once, chunk = config.loop.micro_batch_size or config.loop.batch_size, config.lm.logit_chunk
    # Whatever rounds otherwise is another reference. The number at the end changes with the arithmetic.
    program = (at_once, chunk, jax.devices()[0].device_kind, jax.__version__, 2)
    identity = fingerprint((params, data, model.config, model.dtype, *program))
    path = Path(config.reference_cache or cache() / "reference" / f"{identity}.npz")
    buckets = with_reference(data.train + data.held_out, path, identity, model, params, at_once, chunk)
    return Data(buckets[: len(data.train)], buckets[len(data.train) :])
