"""PPO, RLOO and GRPO against TRL: one batch of fixed completions of a tiny Llama, some ended and some cut, which
scripts/oracle_rlhf.py gave to its trainers; what they made of it lies in golden/.

Where TRL is right, its numbers are ours. Where it is not, or means something else, the test says what it does, does
the same on purpose to get its numbers, and asserts that ours are others.
"""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import replace
from jaxrl.algorithms import GRPO, RLHF, grpo, rlhf
from jaxrl.algorithms.grpo import mean_over
from jaxrl.lm.heads import token_scores
from jaxrl.lm.log_probs import TokenRows
from jaxrl.lm.pretrained.hf_config import from_hf_config
from jaxrl.lm.pretrained.weights import from_hf_tensors
from jaxrl.lm.settings import Sampling
from jaxrl.lm.transformer import language_model
from jaxrl.ops import metrics as m
from jaxrl.ops.losses import clipped_surrogate_loss, clipped_value_loss
from jaxrl.ops.rlhf import completion_gae, group_advantage, kl_estimate, token_rewards, whiten
from jaxrl.sources.sampled import Sampler
from tests.algorithms.test_dpo import PLAIN
from tests.lm.test_parity import digest, padded, tensor

NEW, GROUP = 7, 4
CONSTANT = {"learning_rate": 5e-4, "adam_eps": 1e-6, "warmup": 0.0, "lr_final": 1.0, "batch_size": 8}
COMMON = {"lm": PLAIN, "sampling": Sampling(max_new_tokens=NEW)}
CRITIC_FREE = replace(GRPO(**COMMON), **CONSTANT, per_prompt=GROUP, kl_coef=0.05, num_epochs=3)
CRITIC_FREE = replace(CRITIC_FREE, loss_over="completion")
RLOO = replace(CRITIC_FREE, baseline="rloo", kl_in="reward", kl_estimate="k1", loss_over="constant", num_epochs=1)
PPO = replace(RLHF(**COMMON), **CONSTANT, kl_coef=0.05, critic="separate", missing_eos_penalty=0.5, value_clip=0.2)
PPO = replace(PPO, max_grad_norm=float("inf"))
CONFIGS = {
    "ppo": PPO,
    "rloo": RLOO,
    "rloo_completion": replace(RLOO, loss_over="completion"),
    "grpo": CRITIC_FREE,
    "grpo_tokens": replace(CRITIC_FREE, by_std=False, loss_over="token"),
    "grpo_constant": replace(CRITIC_FREE, by_std=False, loss_over="constant"),
    "grpo_k2": replace(CRITIC_FREE, kl_estimate="k2"),
}
OVER = ("completion", "token", "constant")


@functools.cache
def golden(name):
    """The record, and the models that the oracle made."""
    g = json.loads((Path(__file__).parent / "golden" / f"trl_{name}.json").read_text(encoding="utf-8"))
    config = from_hf_config(g["config"])
    tensors = {who: {k: made(k, tuple(n), who) for k, n in g["shapes"].items()} for who in ("reference", "critic")}
    tensors["policy"] = {k: tensor(k, tuple(n)) for k, n in g["shapes"].items()}
    params = {who: from_hf_tensors(config, state) for who, state in tensors.items()}
    runs = {run["name"]: SimpleNamespace(**run) for run in g.pop("runs")}
    return SimpleNamespace(**g, runs=runs, tensors=tensors, params=params, model=language_model(config))


def made(name, shape, who):
    """The oracle's `mixed`."""
    start = tensor(name, shape)
    return start if name.endswith("norm.weight") else start + np.float32(0.1) * tensor(f"{who}.{name}", shape)


@functools.partial(jax.jit, static_argnums=0)
def measured(model, policy, reference, scores, said, finished):
    sampler = Sampler(model, reference, {"max_new_tokens": NEW}, stop=(0,), reward=lambda rows: scores)
    return sampler.measured(policy, said, finished, jnp.arange(8) // GROUP)


def completed(name, run, policy=None):
    """The batch, as sampling would have brought it. policy: whose log-probs it has, by default the one that spoke."""
    g = golden(name)
    rows = g.runs[run].rows
    tokens, length = padded([row["prompt"] + row["completion"] for row in rows])
    said = TokenRows(*map(jnp.asarray, (tokens, np.array([len(row["prompt"]) for row in rows]), length)))
    finished = jnp.asarray([row["completion"][-1] == 0 for row in rows])
    return measured(
        g.model, policy or g.params["policy"], g.params["reference"], jnp.asarray(g.settings["scores"]), said, finished
    )


@functools.cache
def program(base):
    """(choice, policy, reference, critic, batch) -> of one update of the library: parameters after it, the figures of
    each of its gradient steps with the loss itself among them, and what the loss was given.

    base: of CONFIGS. choice: what else is static in a config, as numbers, so that one program does for several.
    """
    config, model, given = CONFIGS[base], golden("ppo").model, []

    def kept(samples):
        return lambda *fields: given.append(samples(*fields)) or given[-1]

    def chosen(which, *made):
        return jax.tree.map(lambda *x: jnp.stack(x)[which], *made)

    def update(choice, policy, reference, critic, batch):
        over, by_std, k2, unbiased_whitening = choice
        patches = {
            (m, "total"): lambda metrics: metrics,
            (rlhf, "Samples"): kept(rlhf.Samples),
            # TRL's head is not divided by the root of its width
            (rlhf, "token_scores"): lambda m, p, head, tokens: token_scores(m, p, 32**0.5 * head, tokens),
            (rlhf, "whiten"): lambda x, real: chosen(unbiased_whitening, whiten(x, real), unbiased(x, real)),
            (grpo, "Samples"): kept(grpo.Samples),
            (grpo, "mean_over"): lambda *x: chosen(over, *(mean_over(*x[:2], what) for what in OVER)),
            (grpo, "group_advantage"): lambda x, _: chosen(by_std, *(group_advantage(x, by) for by in (False, True))),
            (grpo, "kl_estimate"): lambda *x: chosen(k2, kl_estimate(*x), kl_estimate(*x[:2], "k2")),
        }
        with pytest.MonkeyPatch.context() as patch:
            for (module, name), function in patches.items():
                patch.setattr(module, name, function)
            algorithm = config.make(model, reference, 1)
            learner = algorithm.init(jax.random.key(0))
            trained = learner.trained._replace(policy=policy)
            if isinstance(config, RLHF):
                trained = trained._replace(critic=critic, head=jnp.asarray(tensor("score.weight", (1, 32))).T)
            learner, metrics = algorithm.update(jax.random.key(1), learner._replace(trained=trained), batch)
        return learner.trained, m.values(metrics), given[-1]

    return jax.jit(update)


def updated(kind, name, run, unbiased_whitening=False):
    """What `program` says with a config of CONFIGS on the batch of a record."""
    config, params = CONFIGS[kind], golden(name).params
    base = kind.partition("_")[0]
    critic_free = isinstance(config, GRPO)
    over, by_std = (OVER.index(config.loss_over), int(config.by_std)) if critic_free else (0, 0)
    choice = (over, by_std, int(config.kl_estimate == "k2"), int(unbiased_whitening))
    return program(base)(choice, params["policy"], params["reference"], params["critic"], completed(name, run))


def same(found, expected, within=2e-5):
    np.testing.assert_allclose(found, np.asarray(expected), rtol=within, atol=within)


def differ(found, expected, by):
    assert np.max(np.abs(np.asarray(found) - np.asarray(expected))) > by


def unbiased(x, real, centre=True):
    """`whiten`, with one less in the divisor of the variance."""
    count = jnp.sum(real)
    return whiten(x, real, centre) * jnp.sqrt((count - 1) / count)


# --- what they agree on


@pytest.mark.parametrize("name", ["rloo", "grpo", "ppo"])
def test_the_records_are_of_this_recipe(name):
    g = golden(name)
    assert g.recipe == "pcg64-uniform-v1"
    assert {who: digest(g.tensors[who]) for who in g.sha256} == g.sha256
    config = PPO if name == "ppo" else CRITIC_FREE
    assert g.settings["beta"] == pytest.approx(config.kl_coef)
    assert g.settings["missing_eos_penalty"] == config.missing_eos_penalty
    assert (g.settings["learning_rate"], g.settings["adam_eps"]) == (5e-4, 1e-6)


@pytest.mark.parametrize(("name", "run"), [("rloo", "rloo"), ("grpo", "grpo_group"), ("ppo", "uneven")])
def test_log_probs_are_those_of_trl(name, run):
    r, batch = golden(name).runs[run], completed(name, run)
    assert np.asarray(batch.completion_length).tolist() == [7, 3, 5, 7, 1, 6, 7, 2]
    assert np.asarray(batch.finished).tolist() == [False, True, True, True, True, True, False, True]
    for i, n in enumerate(batch.completion_length):
        same(batch.log_prob[i, :n], r.log_probs[i][:n], 1e-5)
        same(batch.ref_log_prob[i, :n], r.ref_log_probs[i][:n], 1e-5)


@pytest.mark.parametrize(
    ("kind", "run"), [("grpo", "grpo_group"), ("grpo_tokens", "bnpo_none"), ("grpo_constant", "dr_grpo_none")]
)
def test_three_steps_of_grpo_are_those_of_trl(kind, run):
    r, batch = golden("grpo").runs[run], completed("grpo", run)
    _, metrics, samples = updated(kind, "grpo", run)
    same(samples.advantage, np.where(batch.real, np.array(r.advantages)[:, None], 0))
    for name in ("loss", "grad_norm", "entropy"):
        same(metrics[name], getattr(r, name))
    assert r.clip_fraction[2] > 0.4  # the later steps are off the policy that spoke
    # TRL counts only those where clipping changes the loss
    assert (metrics["clip_fraction"] >= np.array(r.clip_fraction) - 1e-6).all()


def test_the_advantages_and_the_gradient_of_rloo_are_those_of_trl():
    """TRL takes the sum over tokens, we the mean over NEW places with loss_over = "constant"; after a first step, which
    has no scale, both are at one policy. A mean over each completion's own tokens goes elsewhere."""
    r, batch = golden("rloo").runs["rloo"], completed("rloo", "rloo")
    trained, metrics, samples = updated("rloo", "rloo", "rloo")
    same(samples.advantage, np.where(batch.real, np.array(r.advantages)[:, None], 0))
    same(NEW * metrics["grad_norm"], r.grad_norm[:1])
    same(metrics["entropy"], r.entropy[:1])
    same(next_loss_of_trl(trained, samples), r.loss[1])
    own, _, samples = updated("rloo_completion", "rloo", "rloo")
    differ(next_loss_of_trl(own, samples), r.loss[1], by=1e-4)


def next_loss_of_trl(trained, samples):
    """RLOO's, whose ratio is that of a whole completion."""
    after = completed("rloo", "rloo", trained.policy).log_prob
    return clipped_surrogate_loss(after.sum(axis=1), samples.log_prob.sum(axis=1), samples.advantage[:, 0], 0.2).mean()


def test_where_ppo_completions_fill_their_places_and_end_only_the_variance_differs():
    """TRL's advantages are in units of the standard deviation with n - 1 in its divisor, ours with n: of 56 tokens
    that is 1 %. With theirs all four epochs are the same, critic, clipping and Adam included."""
    r, batch = golden("ppo").runs["even"], completed("ppo", "even")
    assert bool(batch.finished.all()) and bool(batch.real.all())
    _, _, samples = updated("ppo", "ppo", "even")
    reward = token_rewards(batch.score, kl_estimate(batch.log_prob, batch.ref_log_prob, "k1"), jnp.full(8, NEW), 0.05)
    same(reward, r.rewards)
    same(samples.value, r.values)
    same(samples.target, r.returns)
    same(samples.advantage, np.array(r.advantages) * np.sqrt(56 / 55))
    differ(samples.advantage, r.advantages, by=0.01)
    _, metrics, samples = updated("ppo", "ppo", "even", unbiased_whitening=True)
    same(samples.advantage, r.advantages)
    for name in ("policy_loss", "value_loss", "entropy"):
        same(metrics[name], getattr(r, name))
    assert r.clip_fraction[3] > 0.5 and r.value_clip_fraction[3] > 0.1
    assert float(rlhf.told(batch)["kl"].value) == pytest.approx(getattr(r, "objective/kl"), abs=1e-4)


# --- what they do not agree on


def test_the_kl_of_trl_is_weighed_by_the_ratio():
    """use_bias_correction_kl, on in TRL 1.16: k3 times the ratio, which is 1 at first but has a gradient. With it the
    gradient is that of KL(π ‖ ref), as our k2's is at a ratio of 1; k3 alone, as GRPO's paper has it, has on the
    average that of KL(ref ‖ π)."""
    r = golden("grpo").runs["kl_by_ratio"]
    k3, k2 = (updated(kind, "grpo", "kl_by_ratio")[1] for kind in ("grpo", "grpo_k2"))
    same(k3["loss"][0], r.loss[0])
    same(k2["grad_norm"][0], r.grad_norm[0])
    differ(k3["grad_norm"][0], r.grad_norm[0], by=1e-3)


def test_rloo_of_trl_clips_whole_completions():
    """TRL's ratio is that of a whole completion, the product of those of its tokens: after one step that moves no token
    by much, 3 of 4 completions are clipped and teach nothing. Ours is of each token, as PPO's."""
    r, batch = golden("rloo").runs["rloo"], completed("rloo", "rloo")
    trained, _, samples = updated("rloo", "rloo", "rloo")
    after = completed("rloo", "rloo", trained.policy).log_prob
    whole, each = (jnp.abs(jnp.expm1(x)) > 0.2 for x in ((after - batch.log_prob).sum(axis=1), after - batch.log_prob))
    assert r.clip_fraction[1] == 0.75 and float(jnp.mean(whole)) == 0.75
    assert float(jnp.mean(each, where=batch.real)) < 0.4
    ours = clipped_surrogate_loss(after, batch.log_prob, samples.advantage, 0.2)
    differ(ours.sum() / 8, r.loss[1], by=0.1)


def one_more(batch):
    """What TRL's PPO takes for the length: with the first place of the padding, where there is one."""
    return jnp.minimum(batch.completion_length + 1, NEW)


def of_trl(batch, score, kl):
    """Its rewards."""
    return token_rewards(score, jnp.where(batch.real, kl, 0.0), one_more(batch), 0.05)


def parts(run):
    """The record, the batch, penalised scores, and KL."""
    batch = completed("ppo", run)
    score = batch.score - jnp.where(batch.finished, 0.0, 0.5)
    return golden("ppo").runs[run], batch, score, kl_estimate(batch.log_prob, batch.ref_log_prob, "k1")


def test_ppo_of_trl_pays_the_score_on_the_first_pad():
    """One place after the end token, to a token that nobody said, and only where there is such a place: a completion
    that fills its row is paid at its last token. So the score reaches the end token through one more value and one more
    λ, which the others are spared. One that was cut is worth its score to both, and nothing after its cut."""
    r, batch, score, kl = parts("uneven")
    same(r.scores, score)
    same(jnp.where(batch.real, kl, 0.0), r.kl)
    same(of_trl(batch, score, kl), r.rewards)
    short = np.asarray(batch.completion_length) < NEW
    assert (~short & ~np.asarray(batch.finished)).any()
    ours = np.asarray(token_rewards(score, kl, batch.completion_length, 0.05))
    same(ours[~short], np.array(r.rewards)[~short])
    for i in np.flatnonzero(short):
        end = int(batch.completion_length[i]) - 1
        expected = np.zeros(NEW)
        expected[end], expected[end + 1] = score[i], -score[i]
        same(ours[i] - np.array(r.rewards)[i], expected)

    _, _, samples = updated("ppo", "ppo", "uneven")
    value, theirs = np.array(r.values), np.array(r.returns) - np.array(r.values)
    same(samples.value[batch.real], value[batch.real])
    values = jnp.pad(jnp.asarray(value), ((0, 0), (0, 1)))
    same(completion_gae(jnp.asarray(r.rewards), values, one_more(batch), jnp.ones(8, bool), 1.0, 0.95), theirs)
    away = np.abs(np.where(batch.real, samples.target - samples.value - theirs, 0)).max(axis=1)
    assert (away[short] > 0.02).all() and (away[~short] < 1e-4).all()


def test_ppo_of_trl_values_the_first_pad():
    """Its value loss is a mean over the tokens and the first pad of every completion that has one, whose target is the
    score. The statistics of its advantages are of the tokens alone."""
    r, batch, _, _ = parts("uneven")
    _, metrics, samples = updated("ppo", "ppo", "uneven")
    theirs, value = jnp.asarray(r.returns) - jnp.asarray(r.values), jnp.asarray(r.values)
    same(unbiased(theirs, batch.real), r.advantages)
    loss = clipped_value_loss(value, value, jnp.asarray(r.returns), 0.2)
    with_pads = jnp.arange(NEW) < one_more(batch)[:, None]
    same(jnp.mean(loss, where=with_pads), r.value_loss[0])
    ours = clipped_value_loss(samples.value, samples.value, samples.target, 0.2)
    same(jnp.mean(ours, where=batch.real), metrics["value_loss"][0])
    differ(jnp.mean(loss, where=batch.real), r.value_loss[0], by=0.05)


def test_ppo_of_trl_averages_over_padding():
    """Its entropy is a mean over all places, with what the model would say after padding. Ours is of the tokens, as is
    that of TRL's own RLOO on the same completions."""
    r, _, _, _ = parts("uneven")
    _, metrics, _ = updated("ppo", "ppo", "uneven")
    differ(metrics["entropy"][0], r.entropy[0], by=0.01)
    same(metrics["entropy"][0], golden("rloo").runs["rloo"].entropy[0])
    assert metrics["ratio_error"] < 1e-5


def test_ppo_of_trl_shifts_what_it_whitens():
    """whiten_rewards: (r - mean)/std + mean, as in OpenAI's first code, over the tokens and the first pads. It pays
    mean·(1 - 1/std) for every token, so that what a completion is worth depends on how long it is. Ours is r/std."""
    r, batch, score, kl = parts("uneven_whitened")
    reward, with_pads = of_trl(batch, score, kl), jnp.arange(NEW) < one_more(batch)[:, None]
    mean = jnp.mean(reward, where=with_pads)
    same(jnp.where(with_pads, unbiased(reward, with_pads) + mean, 0.0), r.rewards)
    std = jnp.std(reward, where=with_pads, ddof=1)
    same(jnp.where(with_pads, unbiased(reward, with_pads, centre=False) + mean * (1 - 1 / std), 0.0), r.rewards)
    differ(unbiased(reward, with_pads, centre=False), r.rewards, by=0.01)
    whole = 3  # one whose score lies at the same place in both
    ours = whiten(token_rewards(score, kl, batch.completion_length, 0.05), batch.real, centre=False)
    differ(ours[whole], np.array(r.rewards)[whole], by=0.01)


def test_ppo_of_trl_loses_the_end_token_where_it_pads():
    """Where the end token pads too, TRL takes the end for padding. The score then lies where it belongs, on the end
    token, but that token has no KL, and its advantage is 0: nobody learns to end."""
    r, batch, score, kl = parts("uneven_end_pads")
    end = np.asarray(batch.completion_length) - 1
    ended = np.flatnonzero(batch.finished)
    said = batch.real & ~(batch.finished[:, None] & (jnp.arange(NEW) == jnp.asarray(end)[:, None]))
    reward = token_rewards(score, jnp.where(said, kl, 0.0), batch.completion_length, 0.05)
    same(reward, r.rewards)
    value = jnp.pad(jnp.asarray(r.values), ((0, 0), (0, 1)))
    theirs = completion_gae(reward, value, batch.completion_length, jnp.ones(8, bool), 1.0, 0.95)
    same(theirs, np.array(r.returns) - np.array(r.values))
    same(unbiased(theirs, said), r.advantages)
    assert not np.array(r.advantages)[ended, end[ended]].any()
    _, _, samples = updated("ppo", "ppo", "uneven_end_pads")
    assert np.asarray(samples.advantage)[ended, end[ended]].all() and len(ended) == 6
