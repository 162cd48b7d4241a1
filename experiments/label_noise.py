"""What flipped labels do to DPO, cDPO, robust DPO and IPO, exactly and from samples of pairs.

    scripts/run experiments/label_noise.py
    scripts/run experiments/label_noise.py --num-pairs 100000 5000 1000

A share e of the labels is turned round, so that P becomes (1 - e)P + e(1 - P). cDPO and robust DPO are told ε = e. With
all pairs (exact, and tested):

- DPO fits σ(βΔ) to the flipped P. Margins shrink, large ones most: small ones by 1 - 2e, and none is asked to exceed
  log((1 - e)/e). The bias grows with e.
- cDPO(ε) on flips e is DPO on flips e + ε - 2eε: smoothing flips the labels once more. It does not undo noise but adds
  as much again: at ε = e it has DPO's bias at 2e(1 - e). What it does is to bound every margin.
- robust DPO(ε = e) has the gradient of DPO on clean labels: no bias at any e.
- IPO's target (2P - 1)/(2τ) becomes (1 - 2e) times itself: it is IPO with τ/(1 - 2e), which walks back to the reference
  along its own curve and is never off it. Answers keep their ranking, and a smaller τ undoes the noise exactly.

From finitely many pairs the order changes. Let an answer win W of its comparisons and lose L. As its log-ratio goes to
infinity the slope of robust DPO's loss tends to β[(1 - ε)L - εW]/(1 - 2ε), up to a factor: where it wins a larger share
than 1 - ε, which chance alone soon brings about, the loss has no minimum, and only the number of updates keeps the
policy from that one answer. DPO, ε = 0, needs an answer that never lost. cDPO and IPO always have a finite optimum.

TV to each loss's own noise-free optimum at β = 1, τ = 0.17, seed 0; of samples the median of five:

    flip rate               0     0.1     0.2     0.3     0.4
    all pairs     DPO       0.000   0.111   0.183   0.251   0.311
                  cDPO      0.000   0.168   0.264   0.323   0.356
                  robust    0.000   0.000   0.000   0.000   0.000
                  IPO       0.000   0.071   0.150   0.234   0.318
    20,000 pairs  DPO       0.036   0.115   0.190   0.253   0.311
                  cDPO      0.036   0.175   0.265   0.323   0.355
                  robust    0.036   0.066   0.090   0.153   0.906
                  IPO       0.040   0.087   0.160   0.237   0.318
    2,000 pairs   DPO       0.177   0.159   0.209   0.260   0.322
                  cDPO      0.177   0.193   0.266   0.322   0.355
                  robust    0.177   0.185   0.907   0.890   0.902
                  IPO       0.143   0.155   0.201   0.263   0.339
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

from jaxrl import cli
from jaxrl.ops.losses import preference

FLIPS = (0.0, 0.1, 0.2, 0.3, 0.4)
BETA, TAU = 1.0, 0.17  # about as far from the reference as each other, without noise


@dataclass(frozen=True)
class Options:
    """What to compute."""

    num_pairs: tuple[int, ...] = (20_000, 2_000)
    """Sizes of the samples."""
    num_samples: int = 5
    """Samples of each size."""
    updates: int = 1_000
    """Adam's, full batch."""
    seed: int = 0
    """Seed of the reference, which is also the start, and of the samples."""
    out: Path = Path("runs/label_noise.png")
    """Where the picture goes."""


class Method(NamedTuple):
    """An objective for (shares of pairs, flip rate), and the log-probs that it reaches with all pairs."""

    objective: Callable[[e.Matrix, jax.Array], e.Objective]
    optimum: Callable[[jax.Array], e.Vector]


def methods(ref: e.Vector, reward: e.Vector) -> dict[str, Method]:
    """Losses under flips, and their exact optima."""

    def dpo_at(flip: jax.Array) -> e.Vector:
        return e.bradley_terry_optimum(ref, e.all_pairs(ref, e.preferences(reward, flip)), BETA)

    return {
        "DPO": Method(lambda share, _: e.pair_objective(preference.dpo_loss, ref, share, BETA), dpo_at),
        "cDPO": Method(
            lambda share, flip: e.pair_objective(preference.dpo_loss, ref, share, BETA, flip),
            lambda flip: dpo_at(2 * flip * (1 - flip)),
        ),
        "robust DPO": Method(
            lambda share, flip: e.pair_objective(preference.robust_dpo_loss, ref, share, BETA, flip),
            lambda flip: e.reward_optimum(ref, reward, BETA),
        ),
        "IPO": Method(
            lambda share, _: e.pair_objective(preference.ipo_loss, ref, share, TAU),
            lambda flip: e.ipo_optimum(ref, e.preferences(reward), TAU / (1 - 2 * flip)),
        ),
    }


def pair_shares(ref: e.Vector, reward: e.Vector, options: Options) -> jax.Array:
    """Shares of pairs, [sets, flips, n, n]: all pairs first, then the samples of each size."""
    prefer = jax.vmap(lambda flip: e.preferences(reward, flip))(jnp.array(FLIPS))
    sets = [jax.vmap(lambda p: e.all_pairs(ref, p))(prefer)[None]]
    for count in options.num_pairs:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), count), options.num_samples)
        # One key for all flip rates: the same pairs, differently labelled.
        draw = jax.vmap(lambda key, p, count=count: e.sampled_pairs(key, ref, p, count), (None, 0))
        sets.append(jax.vmap(draw, (0, None))(keys, prefer))
    return jnp.concatenate(sets)


def main() -> None:
    options = tyro.cli(Options, description=__doc__)
    jax.config.update("jax_enable_x64", True)
    cli.enable_compilation_cache()
    start = e.MODEL.init(jax.random.key(options.seed))
    ref, reward, flips = e.log_probs(start), e.rewards(), jnp.array(FLIPS)
    world, shares = methods(ref, reward), pair_shares(ref, reward, options)
    began = time.perf_counter()
    found = {name: jax.block_until_ready(solve(m, shares, flips, start, options.updates)) for name, m in world.items()}
    seconds = time.perf_counter() - began

    clean = {name: method.optimum(flips[0]) for name, method in world.items()}
    distance = {
        name: np.asarray(jax.vmap(jax.vmap(e.total_variation, (0, None)), (0, None))(log_p, clean[name]))
        for name, log_p in found.items()
    }
    error = {
        name: float(jnp.max(jax.vmap(e.total_variation)(found[name][0], jax.vmap(method.optimum)(flips))))
        for name, method in world.items()
    }
    table(options, distance, found, ref, reward)
    path = plot(options, world, found, distance, ref, reward)
    print(f"plot        {path}")
    bias = {name: [round(float(x), 6) for x in d[0]] for name, d in distance.items()}
    print(json.dumps({"bias": bias, "worst_tv_to_theory": error, "seconds": round(seconds, 2)}))


def solve(method: Method, shares: jax.Array, flips: jax.Array, start: jax.Array, updates: int) -> jax.Array:
    """log π of every set and flip rate, [sets, flips, n], in one program."""

    def train(share: e.Matrix, flip: jax.Array) -> e.Vector:
        return e.log_probs(e.fit(method.objective(share, flip), start, updates))

    return jax.jit(jax.vmap(jax.vmap(train), (0, None)))(shares, flips)


def groups(options: Options) -> list[tuple[str, slice]]:
    """Names of the columns and their sets."""
    found = [("all pairs, exact", slice(0, 1))]
    for i, count in enumerate(options.num_pairs):
        found.append((f"{count:,} pairs", slice(1 + i * options.num_samples, 1 + (i + 1) * options.num_samples)))
    return found


def table(options: Options, distance: dict, found: dict, ref: e.Vector, reward: e.Vector) -> None:
    """Distances to the noise-free optimum, then KL and reward: medians over samples, a column per flip rate."""
    print(f"{'':23}{'flip rate 0':>18}" + "".join(f"{flip:8g}" for flip in FLIPS[1:]))
    for title, where in groups(options):
        for name, log_p in found.items():
            kl = jax.vmap(jax.vmap(e.divergence, (0, None)), (0, None))(log_p[where], ref)
            rows = {"TV": distance[name][where], "KL": kl, "E[r]": jnp.exp(log_p[where]) @ reward}
            for quantity, values in rows.items():
                middle = np.median(np.asarray(values), axis=0)
                print(f"{title:16} {name:11} {quantity:5}" + "".join(f"{x:8.3f}" for x in middle))


STYLE = {
    "DPO": {"marker": "o", "color": "C0"},
    "cDPO": {"marker": "v", "color": "C1"},
    "robust DPO": {"marker": "s", "color": "C3"},
    "IPO": {"marker": "^", "color": "C2"},
}


def plot(options: Options, world: dict, found: dict, distance: dict, ref: e.Vector, reward: e.Vector) -> Path:
    """Above: distance to the noise-free optimum. Below: the policies in the plane of KL and reward."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = groups(options)
    figure = Figure(figsize=(8.4, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(columns), sharex="row", sharey="row", squeeze=False)
    fine = jnp.linspace(0, 0.4, 40)
    optima = jax.vmap(lambda beta: e.reward_optimum(ref, reward, beta))(jnp.geomspace(0.12, 2000, 300))
    curve = jax.vmap(e.divergence, (0, None))(optima, ref), jnp.exp(optima) @ reward
    for column, (title, where) in enumerate(columns):
        top, bottom = axes[:, column]
        bottom.plot(*curve, color="0.6", linewidth=1.2, label="Pareto curve")
        for shift, (name, method) in zip((-0.009, -0.003, 0.003, 0.009), world.items(), strict=True):
            values, log_p = distance[name][where], found[name][where]
            low, middle, high = np.percentile(values, (0, 50, 100), axis=0)
            x = np.array(FLIPS) + (shift if column else 0)
            style = {"markersize": 5, **STYLE[name], "linestyle": "none" if column == 0 else "-", "linewidth": 1}
            top.errorbar(x, middle, (middle - low, high - middle), label=name, elinewidth=1, **style)
            if column == 0:
                theory = jax.vmap(method.optimum)(fine)
                exact = jax.vmap(e.total_variation, (0, None))(theory, method.optimum(fine[0]))
                top.plot(fine, exact, color=STYLE[name]["color"], linewidth=1)
            kl = jax.vmap(jax.vmap(e.divergence, (0, None)), (0, None))(log_p, ref)
            plane = {"markersize": 4, **STYLE[name], "linestyle": "none", "alpha": 0.7}
            bottom.plot(np.ravel(kl), np.ravel(jnp.exp(log_p) @ reward), **plane)
        top.set(title=title, xlabel="share of labels flipped", xlim=(-0.03, 0.43))
        bottom.set_xscale("function", functions=(np.sqrt, np.square))
        bottom.set(xlabel="KL(π ‖ reference), nats", xticks=(0, 0.1, 0.5, 1, 2, 4), xlim=(0, 6.2))
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("TV to the noise-free optimum")
    axes[1, 0].set_ylabel("true expected reward E[r]")
    axes[0, 0].legend(fontsize=8)
    axes[1, 0].legend(fontsize=8)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    return options.out


if __name__ == "__main__":
    main()
