"""Policy optimisation on a world that is small enough to enumerate, where the best policy is known: π* ∝ π_ref e^(r/β).

Answers are T tokens of V, then an end that is certain. The model is a table of logits, a row for each prefix.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl import replace, train
from jaxrl.algorithms import GRPO, RLHF, OnlineDPO
from jaxrl.algorithms.grpo import advantages
from jaxrl.data import Data
from jaxrl.data.prompts import PromptRows
from jaxrl.lm import LanguageModel, LMConfig
from jaxrl.lm.heads import token_scores
from jaxrl.lm.log_probs import TokenRows, completion_scores, completion_stats
from jaxrl.lm.settings import Sampling
from jaxrl.ops.losses import clipped_surrogate_loss
from jaxrl.ops.platform import tuned
from jaxrl.ops.rlhf import completion_gae, kl_estimate, token_rewards
from jaxrl.sources.sampled import Completed, of_completion
from tests.helpers.families import config_of

V, T = 3, 2
PREFIXES, END = (V**T - 1) // (V - 1), V
pytestmark = pytest.mark.computes
NEVER = -25.0  # a logit; as certain as float32 can tell, and small enough to be a critic's feature
BETA = 0.5
SCORES = jnp.asarray([0.0, 1.0, -0.5, 0.3, 0.8, -1.0, 1.5, 0.2, -0.2])
REF = jnp.asarray(0.7 * np.random.default_rng(0).normal(size=(PREFIXES, V)), jnp.float32)


def logits(params, node, depth):
    speaks = jnp.concatenate([params[jnp.minimum(node, PREFIXES - 1)], jnp.full((*node.shape, 1), NEVER)], axis=-1)
    ends = jnp.full(V + 1, NEVER).at[END].set(0.0)
    return jnp.where((depth < T)[..., None], speaks, ends)


def hidden(params, tokens):
    nodes = [jnp.zeros(len(tokens), jnp.int32)]
    for t in range(1, tokens.shape[1]):
        nodes.append(jnp.minimum(nodes[-1] * V + 1 + tokens[:, t], PREFIXES - 1))
    return logits(params, jnp.stack(nodes, axis=1), jnp.arange(tokens.shape[1])[None])


def extend(params, layers, tokens, start, cache):
    (node,) = cache
    node = jnp.minimum(node * V + 1 + tokens[:, 0], PREFIXES - 1)
    return logits(params, node, start)[:, None], (node,)


MODEL = LanguageModel(
    config=config_of("llama", vocab_size=V + 1, hidden_size=V + 1),
    dtype=jnp.float32,
    init=lambda key: REF,
    apply=hidden,
    hidden=hidden,
    unembed=lambda params, rows: rows,
    prefill=lambda params, tokens, room: (hidden(params, tokens), (jnp.zeros(len(tokens), jnp.int32),)),
    extend=extend,
    unstack=lambda params: (),
)
PLACES = jnp.stack(jnp.meshgrid(*[jnp.arange(V)] * T, indexing="ij"), -1).reshape(-1, T)
ANSWERS = TokenRows(
    jnp.concatenate([jnp.zeros((V**T, 1), jnp.int32), PLACES, jnp.full((V**T, 1), END)], axis=1),
    jnp.ones(V**T, jnp.int32),
    jnp.full(V**T, T + 2),
)


def reward(rows):
    return SCORES[rows.tokens[:, 1] * V + rows.tokens[:, 2]]


def distribution(params):
    return jnp.exp(completion_scores(MODEL, params, ANSWERS, chunk=None).log_prob)


def best(beta=BETA):
    return jax.nn.softmax(jnp.log(distribution(REF)) + SCORES / beta)


def away(params, beta=BETA):
    return float(0.5 * jnp.abs(distribution(params) - best(beta)).sum())


PROMPTS = Data((PromptRows(np.zeros((64, 1), np.int32), np.ones(64, np.int32), np.arange(64, dtype=np.int32)),))
COMMON = {"batch_size": 512, "warmup": 0.0, "learning_rate": 0.03, "max_grad_norm": float("inf")}
PLAIN = {"lm": LMConfig(logit_chunk=None), "sampling": Sampling(max_new_tokens=T + 1)}
PPO = replace(RLHF(**PLAIN), **COMMON, kl_coef=BETA, epochs=3200, num_epochs=2, gae_lambda=1.0)
CRITIC_FREE = replace(GRPO(**PLAIN), **COMMON, kl_coef=BETA, epochs=3200, kl_in="reward", kl_estimate="k1")


def learned(config, updates=400):
    config = replace(config, max_updates=updates)
    given = {"network": MODEL, "params": REF, "data": PROMPTS, "reward": reward, "stop": (END,)}
    with tuned(halve_above=None):  # all answers are of one length, and each halving takes as long to compile
        return jax.jit(lambda key: train(config, key, **given))(jax.random.key(1))


def test_the_world_is_what_it_says():
    assert float(distribution(REF).sum()) == pytest.approx(1, abs=1e-6)
    assert away(REF) > 0.3
    state, metrics = learned(replace(PPO, learning_rate=0.0), 4)
    assert float(metrics["finished"].value.min()) == 1 and float(metrics["length"].value.mean()) == T + 1
    expected = float(distribution(REF) @ SCORES)
    assert float(metrics["reward"].value.mean()) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize(
    "config",
    [
        PPO,
        replace(PPO, critic="separate", whiten_advantages=False),
        replace(CRITIC_FREE, baseline="rloo"),
        replace(CRITIC_FREE, baseline="reinforce++", per_prompt=1),
        replace(CRITIC_FREE, by_std=False, loss_over="constant"),
    ],
    ids=["ppo", "ppo-separate", "rloo", "reinforce++", "dr-grpo"],
)
def test_from_samples_it_comes_to_the_best_policy(config):
    state, metrics = learned(config)
    assert away(state.learner.trained.policy) < 0.02
    assert float(jnp.max(metrics["ratio_error"].value)) < 1e-4


def test_where_the_penalty_is_in_the_loss_it_comes_to_another_policy():
    """Not a fault of the code: what GRPO's paper writes down is another objective. With the penalty in the reward all
    completions score alike at the best policy, so that their scaling does not matter there."""
    in_reward = away(learned(replace(CRITIC_FREE, by_std=True))[0].learner.trained.policy)
    in_loss = away(learned(replace(CRITIC_FREE, kl_in="loss", kl_estimate="k3"))[0].learner.trained.policy)
    assert in_reward < 0.02 and in_loss > 0.04


def test_with_exact_gradients_it_is_the_best_policy():
    """Every answer weighed by its probability, rewards and advantages as in an update, and its loss, to the end."""
    with jax.enable_x64(True):
        scores, ref = SCORES.astype(jnp.float64), REF.astype(jnp.float64)
        room, length = T + 1, jnp.full(V**T, T + 1)

        def of_tokens(params):
            return of_completion(completion_stats(MODEL, params, ANSWERS, None)[0].log_prob, ANSWERS, room)

        def loss(params, old):
            said = jax.lax.stop_gradient(of_tokens(old))
            rewards = token_rewards(scores, kl_estimate(said, of_tokens(ref), "k1"), length, BETA)
            value = jnp.zeros((V**T, room + 1))
            advantage = completion_gae(rewards, value, length, jnp.ones(V**T, bool), 1.0, 1.0)
            weight = jnp.exp(said.sum(axis=1, keepdims=True))
            return jnp.sum(weight * clipped_surrogate_loss(of_tokens(params), said, advantage, 0.2))

        optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 3000))

        def step(carry, _):
            params, opt_state = carry
            updates, opt_state = optimizer.update(jax.grad(loss)(params, params), opt_state)
            return (optax.apply_updates(params, updates), opt_state), None

        start = (ref, optimizer.init(ref))
        (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, length=3000))(start)
        target = jax.nn.softmax(jnp.log(distribution(ref)) + scores / BETA)
        assert float(0.5 * jnp.abs(distribution(params) - target).sum()) < 1e-6


@pytest.mark.parametrize("start", [0.25, 2.0])
def test_the_adaptive_controller_holds_its_target(start):
    """From a penalty that is too weak, and from one that is too strong."""
    config = replace(PPO, kl_controller="adaptive", kl_target=0.3, kl_horizon=2000.0, kl_coef=start, lr_final=1.0)
    _, metrics = learned(config, 300)
    kl = np.asarray(metrics["kl"].value)
    assert np.abs(kl[10:40] - 0.3).max() > 0.1
    assert np.abs(kl[150:].reshape(3, 50).mean(axis=1) - 0.3).max() < 0.06


def test_without_a_penalty_the_best_answer_is_all_that_is_said():
    state, _ = learned(replace(CRITIC_FREE, baseline="rloo", kl_coef=0.0))
    assert float(distribution(state.learner.trained.policy)[int(jnp.argmax(SCORES))]) > 0.97


@pytest.mark.parametrize("loss", ["dpo", "ipo"])
def test_online_preferences_come_to_what_is_preferred(loss):
    """The better of two is all that is known: more of what wins, held to the reference by β."""
    config = replace(OnlineDPO(**PLAIN), **COMMON, beta=0.3, loss=loss, epochs=3200)
    state, metrics = learned(config, 200)
    found, before = distribution(state.learner.trained.policy), distribution(REF)
    assert float(found @ SCORES) > float(before @ SCORES) + 0.3
    assert float(found[int(jnp.argmax(SCORES))]) > 1.5 * float(before[int(jnp.argmax(SCORES))])
    assert float(metrics["loss"].value[0]) == pytest.approx(np.log(2) if loss == "dpo" else 1 / (4 * 0.3**2), rel=1e-5)
    assert 0.5 < float(metrics["pairs"].value[0]) < 1  # two that are the same answer are no pair


@pytest.mark.parametrize(("cut", "worth"), [("scored", 1.0), ("bootstrapped", 0.0)])
def test_an_answer_that_is_cut_is_paid_once(cut, worth):
    """With a score of 1 and the value of what follows, values would rise without end, and never to end would pay."""
    config = replace(PPO, sampling=Sampling(max_new_tokens=T), cut=cut, kl_coef=0.0, gae_lambda=0.5, max_updates=200)
    given = {"network": MODEL, "params": REF, "data": PROMPTS, "reward": lambda rows: jnp.ones(len(rows.tokens))}
    state, metrics = jax.jit(lambda key: train(config, key, **given))(jax.random.key(1))
    assert not metrics["finished"].value.any()
    head = state.learner.trained.head / MODEL.config.hidden_size**0.5
    values = token_scores(MODEL, state.learner.trained.policy, head, ANSWERS.tokens[:, : T + 1])
    np.testing.assert_allclose(values[:, :T], worth, atol=0.02)


@pytest.mark.parametrize("baseline", ["grpo", "rloo", "reinforce++"])
def test_nothing_is_learned_from_answers_that_are_cut_where_they_are_left_out(baseline):
    config = replace(CRITIC_FREE, baseline=baseline, max_updates=2, kl_in="loss", kl_estimate="k3")
    given = {"network": MODEL, "params": REF + 0.1, "data": PROMPTS, "reward": reward}

    def learned(**changes):
        run = jax.jit(lambda key: train(replace(config, **changes), key, **given))
        state, metrics = run(jax.random.key(1))
        assert not metrics["finished"].value.any()
        return state.learner.trained.policy

    short = Sampling(max_new_tokens=T)
    np.testing.assert_array_equal(learned(sampling=short, cut="left_out"), REF + 0.1)
    assert (learned(sampling=short) != REF + 0.1).any()


def test_an_answer_that_is_left_out_is_still_one_of_its_group():
    two, none = jnp.ones(2, jnp.int32), jnp.zeros((2, 3))
    ended, yes = jnp.array([True, False]), jnp.ones(2, bool)
    score = jnp.array([1.0, 0.0])
    batch = Completed(jnp.zeros((2, 4), jnp.int32), two, 4 * two, ended, 0 * two, none, none, score, yes, ~yes)
    config = replace(CRITIC_FREE, per_prompt=2)
    scored, left_out = (advantages(replace(config, cut=cut), batch)[0] for cut in ("scored", "left_out"))
    np.testing.assert_allclose(scored, np.outer([0.7070, -0.7070], np.ones(3)), atol=1e-3)
    np.testing.assert_array_equal(left_out, scored * ended[:, None])
