"""DPO, IPO, KTO and PPO on a language model small enough to enumerate, against what each should reach.

    scripts/run experiments/exact_alignment.py
    scripts/run experiments/exact_alignment.py --seed 1 --out runs/another_reference.png

Sixty-four answers, so expectations are sums and no error is left but the optimizer's. Each loss is jaxrl's own, trained
by Adam for several strengths from several starting points, in one program, and must end at its closed-form optimum
(derivations in `enumerable.py`); the picture shows where that is. What to see:

- DPO and PPO (reward r - β·h, as in RLHF) have one optimum, π* ∝ π_ref exp(r/β): the Pareto curve itself.
- IPO's is π ∝ π_ref exp(p/τ), p the rate of winning against the reference: Pareto for p, and a little below the curve
  for r, since p is σ-shaped in r.
- KTO's is not of that form: answers with too many thumbs down get probability 0, however large β is. β hardly moves the
  optimum (KL 0.84 to 0.80 nats from β = 0.1 to 0.9), the weights of the classes do (0.21 to 1.92 from λ_U = 0.15 to 3).
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import enumerable as e
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax.nn import sigmoid

from jaxrl import cli
from jaxrl.ops.losses import preference


@dataclass(frozen=True)
class Options:
    """What to compute."""

    seed: int = 0
    """Seed of the reference, and of the starting points."""
    num_starts: int = 3
    """Policies per setting: one starts as the reference, the others at random."""
    out: Path = Path("runs/exact_alignment.png")
    """Where the picture goes."""


class Method(NamedTuple):
    """A loss with settings [k, m], its objective and the log-probs it must reach for a setting [m]."""

    names: tuple[str, ...]
    settings: tuple[tuple[float, ...], ...]
    objective: Callable[[jax.Array], e.Objective]
    optimum: Callable[[jax.Array], e.Vector]
    updates: int
    inner: int = 1


class Found(NamedTuple):
    """What a method came to, one entry per setting: [k]. The distances are the worst over the starts."""

    log_p: jax.Array
    kl: np.ndarray
    reward: np.ndarray
    distance: np.ndarray
    gap: np.ndarray
    seconds: tuple[float, float]


BETAS = tuple((beta,) for beta in (0.25, 0.35, 0.5, 0.7, 1.0, 2.0, 5.0))
TAUS = tuple((tau,) for tau in (0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1.0))
KTO_SETTINGS = ((0.1, 1.0), (0.9, 1.0), (0.5, 1.0), (0.5, 0.15), (0.5, 0.3), (0.5, 0.5), (0.5, 2.0), (0.5, 3.0))


def methods(ref: e.Vector, reward: e.Vector) -> dict[str, Method]:
    """All four, in expectation over answers, pairs and labels of this world."""
    prefer = e.preferences(reward)
    share, thumb_up = e.all_pairs(ref, prefer), desirable(ref, reward)
    return {
        "DPO": Method(
            ("β",),
            BETAS,
            lambda x: e.pair_objective(preference.dpo_loss, ref, share, x[0]),
            lambda x: e.reward_optimum(ref, reward, x[0]),
            updates=2000,
        ),
        "PPO": Method(
            ("β",),
            BETAS,
            lambda x: e.ppo_objective(ref, reward, x[0]),
            lambda x: e.reward_optimum(ref, reward, x[0]),
            updates=6000,
            inner=4,
        ),
        "IPO": Method(
            ("τ",),
            TAUS,
            lambda x: e.pair_objective(preference.ipo_loss, ref, share, x[0]),
            lambda x: e.ipo_optimum(ref, prefer, x[0]),
            updates=2000,
        ),
        "KTO": Method(
            ("β", "λ_U"),
            KTO_SETTINGS,
            lambda x: e.kto_objective(ref, thumb_up, *x),
            lambda x: e.kto_optimum(ref, thumb_up, *x),
            updates=20_000,
        ),
    }


def desirable(ref: e.Vector, reward: e.Vector) -> e.Vector:
    """Probability of a thumb up: σ(r - E_ref r)."""
    return sigmoid(reward - jnp.exp(ref) @ reward)


def frontier(ref: e.Vector, reward: e.Vector, kl: jax.Array) -> jax.Array:
    """The most E[r] at a given KL(π ‖ π_ref), by bisection for β."""

    def halve(bounds: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        middle = sum(bounds) / 2  # of log β
        far = e.divergence(e.reward_optimum(ref, reward, jnp.exp(middle)), ref) > kl
        return (jnp.where(far, middle, bounds[0]), jnp.where(far, bounds[1], middle)), None

    low, high = jax.lax.scan(halve, (jnp.log(1e-2), jnp.log(1e3)), None, 60)[0]
    return jnp.exp(e.reward_optimum(ref, reward, jnp.exp((low + high) / 2))) @ reward


def solve(method: Method, starts: jax.Array, ref: e.Vector, reward: e.Vector) -> Found:
    """Train every setting from every start, [k, starts, n], and compare."""
    settings = jnp.array(method.settings)

    def train(x: jax.Array, start: e.Params) -> e.Vector:
        return e.log_probs(e.fit(method.objective(x), start, method.updates, method.inner))

    began = time.perf_counter()
    compiled = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None))).lower(settings, starts).compile()
    middle = time.perf_counter()
    log_p = jax.block_until_ready(compiled(settings, starts))
    seconds = (middle - began, time.perf_counter() - middle)

    distances = jax.vmap(jax.vmap(e.total_variation, (0, None)))(log_p, jax.vmap(method.optimum)(settings))
    first = log_p[:, 0]
    kl, expected = jax.vmap(e.divergence, (0, None))(first, ref), jnp.exp(first) @ reward
    gap = jax.vmap(lambda x: frontier(ref, reward, x))(kl) - expected
    return Found(first, *(np.asarray(x) for x in (kl, expected, jnp.max(distances, axis=1), gap)), seconds)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    jax.config.update("jax_enable_x64", True)
    cli.enable_compilation_cache()
    keys = jax.random.split(jax.random.key(options.seed), options.num_starts)
    starts = jax.vmap(e.MODEL.init)(keys)
    ref, reward = e.log_probs(starts[0]), e.rewards()
    world = methods(ref, reward)
    found = {name: solve(method, starts, ref, reward) for name, method in world.items()}

    print("method  setting            KL (nats)     E[r]   below the frontier   TV to its optimum")
    for name, method in world.items():
        got = found[name]
        for x, *row in zip(method.settings, got.kl, got.reward, got.gap, got.distance, strict=True):
            setting = ", ".join(f"{k} = {v:g}" for k, v in zip(method.names, x, strict=True))
            print("{:7} {:18} {:9.4f} {:8.4f} {:16.1e} {:19.1e}".format(name, setting, *row))
    path = plot(options.out, world, found, ref, reward)
    print(f"plot        {path}")
    figures = {f"worst_tv_{name.lower()}": float(got.distance.max()) for name, got in found.items()}
    compiling, training = (sum(got.seconds[i] for got in found.values()) for i in range(2))
    print(json.dumps({**figures, "train_seconds": round(training, 2), "compile_seconds": round(compiling, 2)}))


STYLE = {
    "DPO": {"marker": "o", "markersize": 9, "markerfacecolor": "none", "color": "C0"},
    "PPO": {"marker": "x", "markersize": 6, "color": "C3"},
    "IPO": {"marker": "^", "markersize": 6, "color": "C2"},
    "KTO": {"marker": "s", "markersize": 5, "color": "C1"},
}
LABELS = {
    "DPO": "DPO, β as written",
    "PPO": "PPO with KL penalty, the same β",
    "IPO": "IPO, seven τ",
    "KTO": "KTO, three β and six $λ_U$",
}


def plot(path: Path, world: dict[str, Method], found: dict[str, Found], ref: e.Vector, reward: e.Vector) -> Path:
    """Trained policies on the Pareto curve, and below how far under it they lie."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    optima = jax.vmap(lambda beta: e.reward_optimum(ref, reward, beta))(jnp.geomspace(0.21, 200, 400))
    kls = jax.vmap(e.divergence, (0, None))(optima, ref)
    top.plot(kls, jnp.exp(optima) @ reward, color="0.6", linewidth=1.5, label="Pareto curve, exact")
    weights = jnp.geomspace(0.02, 3.2, 200)
    thumb_up = desirable(ref, reward)
    limits = jax.vmap(lambda weight: e.kto_optimum(ref, thumb_up, 0.5, weight))(weights)
    shares = jnp.exp(limits)
    kto_kl = jnp.sum(shares * jnp.where(shares > 0, limits - ref, 0.0), axis=1)
    top.plot(kto_kl, shares @ reward, color="C1", linewidth=1, alpha=0.6, label="KTO's optimum, β = 0.5, any $λ_U$")
    for name, got in found.items():
        style = {"linestyle": "none", "label": LABELS[name], **STYLE[name]}
        top.plot(got.kl, got.reward, **style)
        bottom.semilogy(got.kl, np.maximum(np.abs(got.gap), 1e-16), **style)
    for (beta,), kl, expected in zip(BETAS, found["DPO"].kl, found["DPO"].reward, strict=True):
        top.annotate(
            f"{beta:g}", (kl, expected), (-7, 6), textcoords="offset points", ha="right", fontsize=8, color="C0"
        )
    top.set_ylabel("expected reward E[r]")
    top.set_title("Where each loss leads: trained policies and the exact Pareto curve")
    top.legend(loc="lower right", fontsize=9)
    bottom.set(xlabel="KL(π ‖ reference), nats", ylabel="E[r] below the curve", ylim=(1e-17, 3))
    for axis in (top, bottom):
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path


if __name__ == "__main__":
    main()
