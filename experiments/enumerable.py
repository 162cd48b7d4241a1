"""A language model small enough to enumerate: expectations are sums, and losses have their optimum in closed form.

Answers to one prompt are T tokens long, so there are V^T of them. The model is a table with a row of logits per prefix:
it represents every distribution with full support, so nothing below depends on what a network can express. It is a
`LanguageModel` like any other: its log-probs come through jaxrl's own door, and losses see nothing else of it.

Notation: w = π_ref over answers, h = log π - log π_ref, r the reward, P_ij = σ(r_i - r_j) how often i is preferred to
j (Bradley & Terry 1952). Vectors over answers are [n] with n = V^T; matrices have the preferred answer in the row.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.nn import log_sigmoid, log_softmax, sigmoid
from jaxtyping import Array, Float

from jaxrl.lm import LanguageModel
from jaxrl.lm import log_probs as door
from jaxrl.ops.losses import policy_gradient, preference

VOCAB, STEPS = 4, 3
PREFIXES = (VOCAB**STEPS - 1) // (VOCAB - 1)

Vector = Float[Array, " n"]
Matrix = Float[Array, "n n"]
Params = Float[Array, "prefixes V"]
Objective = Callable[[Vector, Vector], Float[Array, ""]]

# --- the model and its world ------------------------------------------------------------------------------------------


def answers() -> jax.Array:
    """All answers, [n, T]."""
    return jnp.stack(jnp.meshgrid(*[jnp.arange(VOCAB)] * STEPS, indexing="ij"), -1).reshape(-1, STEPS)


def hidden(params: Params, tokens: jax.Array) -> jax.Array:
    """Logits of the token after each prefix. Prefixes are numbered as in a V-ary heap; token 0 is the prompt."""
    node = [jnp.zeros(len(tokens), jnp.int32)]
    for t in range(1, tokens.shape[1] - 1):
        node.append(node[-1] * VOCAB + 1 + tokens[:, t])
    return params[jnp.stack([*node, node[-1]], axis=1)]  # the last position predicts nothing


MODEL = LanguageModel(
    config=None,
    dtype=None,
    init=lambda key: 0.5 * jax.random.normal(key, (PREFIXES, VOCAB)),
    apply=hidden,
    hidden=hidden,
    unembed=lambda params, rows: rows,
    prefill=None,
    extend=None,
)


def log_probs(params: Params) -> Vector:
    """log π of every answer, through the same function as SmolLM2's."""
    n = VOCAB**STEPS
    rows = door.TokenRows(jnp.pad(answers(), ((0, 0), (1, 0))), jnp.full(n, 1), jnp.full(n, 1 + STEPS))
    return door.completion_scores(MODEL, params, rows, chunk=None).log_prob


def rewards() -> Vector:
    """r = #token 0 - ½·#token 3."""
    return jnp.sum(answers() == 0, axis=1) - 0.5 * jnp.sum(answers() == 3, axis=1)


def preferences(reward: Vector, flip: float | Array = 0.0) -> Matrix:
    """P_ij = σ(r_i - r_j), of which a share `flip` of the labels is then turned round: (1 - e)P_ij + e·P_ji."""
    clean = sigmoid(reward[:, None] - reward)
    return (1 - flip) * clean + flip * clean.T


def all_pairs(ref: Vector, prefer: Matrix) -> Matrix:
    """How often a pair (chosen i, rejected j) occurs when both answers are drawn from π_ref: 2·w_i·w_j·P_ij."""
    return 2 * jnp.exp(ref[:, None] + ref) * prefer


def sampled_pairs(key: jax.Array, ref: Vector, prefer: Matrix, count: int) -> Matrix:
    """The same as frequencies among `count` labelled pairs."""
    k_pair, k_label = jax.random.split(key)
    i, j = jax.random.choice(k_pair, len(ref), (2, count), p=jnp.exp(ref))
    first = jax.random.bernoulli(k_label, prefer[i, j])
    return jnp.zeros_like(prefer).at[jnp.where(first, i, j), jnp.where(first, j, i)].add(1 / count)


def divergence(log_p: Vector, ref: Vector) -> Array:
    """KL(π ‖ π_ref) in nats."""
    return jnp.sum(jnp.exp(log_p) * (log_p - ref))


def total_variation(log_p: Vector, log_q: Vector) -> Array:
    """½ Σ |π - π'|."""
    return 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)))


# --- objectives: of every answer's log-prob under the policy, and under the policy at the round's start ---------------


def pair_objective(loss: Callable[..., Array], ref: Vector, share: Matrix, *hypers: float | Array) -> Objective:
    """Expectation of a loss of pairs, each of which occurs with its share."""

    def objective(log_p: Vector, _: Vector) -> Array:
        chosen, ref_chosen = (jnp.broadcast_to(x[:, None], share.shape) for x in (log_p, ref))
        return jnp.sum(share * loss(chosen, chosen.T, ref_chosen, ref_chosen.T, *hypers))

    return objective


def kto_objective(ref: Vector, desirable: Vector, beta: float | Array, undesirable_weight: float | Array) -> Objective:
    """Expectation of KTO's loss: answers drawn from π_ref, a thumb up with the probability given."""

    def objective(log_p: Vector, _: Vector) -> Array:
        weight, h = jnp.exp(ref), log_p - ref
        z0 = preference.kto_z0(jnp.sum(weight * h), jnp.sum(weight))
        up, down = (
            preference.kto_loss(h, jnp.full(h.shape, label), z0, beta, 1.0, undesirable_weight)
            for label in (True, False)
        )
        return jnp.sum(weight * (desirable * up + (1 - desirable) * down))

    return objective


def ppo_objective(ref: Vector, reward: Vector, beta: float | Array, clip_eps: float = 0.2) -> Objective:
    """PPO's surrogate in expectation over the round's own policy, whose reward is r - β·h as in RLHF."""

    def objective(log_p: Vector, behaviour: Vector) -> Array:
        score = reward - beta * (behaviour - ref)
        advantage = score - jnp.sum(jnp.exp(behaviour) * score)
        losses = policy_gradient.clipped_surrogate_loss(log_p, behaviour, advantage, clip_eps)
        return jnp.sum(jnp.exp(behaviour) * losses)

    return objective


def fit(objective: Objective, start: Params, updates: int, inner: int = 1) -> Params:
    """Parameters after Adam at 0.05 with a cosine to 0. `inner`: updates per round."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.05, updates), b2=0.99, eps=1e-12)

    def round_(carry: Any, _: None) -> tuple[Any, None]:
        behaviour = log_probs(carry[0])

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            change, state = optimizer.update(jax.grad(lambda p: objective(log_probs(p), behaviour))(params), state)
            return (optax.apply_updates(params, change), state), None

        return jax.lax.scan(step, carry, None, inner)

    return jax.lax.scan(round_, (start, optimizer.init(start)), None, updates // inner)[0][0]


# --- where they end ---------------------------------------------------------------------------------------------------


def reward_optimum(ref: Vector, reward: Vector, beta: float | Array) -> Vector:
    """log π* with π* ∝ π_ref exp(r/β): the maximum of E[r] - β KL(π ‖ π_ref). The Pareto curve is {π*: β > 0}.

    Also DPO's: its loss is the cross-entropy of σ(β(h_i - h_j)) against P_ij = σ(r_i - r_j), equal iff h = r/β + c.
    """
    return log_softmax(ref + reward / beta)


def ipo_optimum(ref: Vector, prefer: Matrix, tau: float | Array) -> Vector:
    """log π with π ∝ π_ref exp(p/τ), p_i = Σ_j w_j P_ij: how often i is preferred to an answer of the reference.

    P(Δ - m)² + (1 - P)(Δ + m)² = (Δ - (2P - 1)m)² + const with m = 1/(2τ). So IPO regresses h_i - h_j on
    g_ij = (2P_ij - 1)/(2τ), weighted by w_i·w_j. Its normal equations Σ_j w_j (h_i - h_j - g_ij) = 0 have the one
    solution h_i = Σ_j w_j g_ij + c = p_i/τ + c', whether P is Bradley-Terry or not. Which is the maximum of
    E[p] - τ KL(π ‖ π_ref): Pareto for the rate of winning, and near it but not on it for the reward.
    """
    return log_softmax(ref + prefer @ jnp.exp(ref) / tau)


def bradley_terry_optimum(ref: Vector, share: Matrix, beta: float | Array, iterations: int = 25) -> Vector:
    """DPO's optimum for any shares of pairs: logistic regression of h, by Newton's method.

    Every answer wins as often as its model says: Σ_j [share_ij σ(-β(h_i - h_j)) - share_ji σ(-β(h_j - h_i))] = 0.
    """

    def step(h: Vector, _: None) -> tuple[Vector, None]:
        win = sigmoid(beta * (h[:, None] - h))
        gradient = jnp.sum(share * win.T - share.T * win, axis=1)
        curvature = beta * (share + share.T) * win * win.T
        laplacian = jnp.diag(jnp.sum(curvature, axis=1)) - curvature
        return h + jnp.linalg.solve(laplacian + jnp.outer(jnp.exp(ref), jnp.exp(ref)), gradient), None

    return log_softmax(ref + jax.lax.scan(step, jnp.zeros_like(ref), None, iterations)[0])


def kto_optimum(
    ref: Vector,
    desirable: Vector,
    beta: float | Array,
    undesirable_weight: float | Array = 1.0,
    z0: float | Array = 0.0,
) -> Vector:
    """KTO's fixed point for a given z0, 0 < β <= 1.

    With c = λ_D d - λ_U (1 - d), d the probability of a thumb up, the loss is Σ w c σ(-β(h - z0)) + const, monotone in
    each h: only Σ w e^h = 1 holds it. Stationarity with the multiplier μ > 0 is

        c_y · β σ'(β(h_y - z0)) = μ e^{h_y}  where c_y > 0,   and π_y = 0 where c_y <= 0.

    For β < 1, σ'(β(h - z0)) e^{-h} falls strictly from ∞ to 0: one h for each μ, found by bisection, and one μ.
    Which answers survive depends on c alone, and π → w·max(c, 0)/Z as β → 0: β moves it little, λ_U/λ_D a lot.

    z0 = E_ref[h] = -KL(π_ref ‖ π) <= 0 when mismatched answers come from the reference too: it is clamped to 0.
    """
    c = desirable - undesirable_weight * (1 - desirable)
    log_c = jnp.log(jnp.where(c > 0, c, 1.0))

    def bisect(falling: Callable[[Array], Array], low: Array, high: Array) -> Array:
        def halve(bounds: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            middle = sum(bounds) / 2
            right = falling(middle) > 0
            return (jnp.where(right, middle, bounds[0]), jnp.where(right, bounds[1], middle)), None

        return sum(jax.lax.scan(halve, (low, high), None, 80)[0]) / 2

    def ratio(log_mu: Array) -> Vector:
        def excess(h: Vector) -> Vector:
            return log_c + log_sigmoid(beta * (h - z0)) + log_sigmoid(-beta * (h - z0)) - h - log_mu

        return bisect(excess, jnp.full_like(ref, -500.0), jnp.full_like(ref, 500.0))

    def mass(log_mu: Array) -> Array:
        return jnp.sum(jnp.where(c > 0, jnp.exp(ref + ratio(log_mu)), 0.0)) - 1

    log_mu = bisect(mass, jnp.asarray(-60.0, ref.dtype), jnp.asarray(60.0, ref.dtype))
    return log_softmax(jnp.where(c > 0, ref + ratio(log_mu), -jnp.inf))
