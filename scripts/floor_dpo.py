# needs: lm
"""Where a step of DPO, KTO or SFT spends its time, and the floor under it: what it cannot do without.

    scripts/run scripts/floor_dpo.py --algorithm dpo

The same model and rows as benchmark_dpo.py. The floor is the step's matrix products, those that are computed again in
the backward pass included, each at the speed at which it runs here by itself, and AdamW's 28 bytes a parameter at the
speed of an addition. Attention's products, softmax, norms and the vocabulary's exponentials are not in it.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from benchmark_dpo import LENGTH, PAIRS, PROMPT, prepared

from jaxrl import cli
from jaxrl.data.arrays import DataBatch
from jaxrl.lm import ModelConfig
from jaxrl.lm.log_probs import CHUNK
from jaxrl.ops.optimizers import adamw_step
from jaxrl.ops.platform import tuning


class Clock:
    """Least seconds of a few calls, the first not counted."""

    def __init__(self, read: Callable[[], float], calls: int):
        self.read, self.calls = read, calls

    def __call__(self, f: Callable, *args: Any, again: Callable = lambda made, args: args) -> float:
        """again(result, arguments) -> the arguments of the next call, for functions that are given theirs for good."""
        took = []
        for _ in range(self.calls):
            began = self.read()
            made = jax.block_until_ready(f(*args))
            took.append(self.read() - began)
            args = again(made, args)
        return min(took[1:])


def matrix_products(clock: Clock, c: ModelConfig, algorithm: str, again: bool) -> float:
    """Seconds of a step's. again: layers are computed twice."""

    def once(m: int, k: int, n: int) -> float:
        f, repeats = jax.jit(lambda x, w: x @ w), max(1, int(2e9 / (m * k * n)))
        return clock(lambda x, w: [f(x, w) for _ in range(repeats)], jnp.ones((m, k)), jnp.ones((k, n))) / repeats

    def layer(tokens: int, forwards: int, backwards: int) -> float:
        """What a layer ends with, `down`, is not asked for again."""
        q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        d, wide, total = c.hidden_size, c.intermediate_size, 0.0
        for n_in, n_out, count, twice in ((d, q, 1, 1), (d, kv, 2, 1), (q, d, 1, 1), (d, wide, 2, 1), (wide, d, 1, 0)):
            total += count * (forwards + twice * again * backwards) * once(tokens, n_in, n_out)
            if backwards:
                total += count * (once(tokens, n_out, n_in) + once(n_in, tokens, n_out))
        return total

    answers = 2 * PAIRS
    chunks = -(-answers * (LENGTH - PROMPT) // CHUNK)
    logits = once(CHUNK, c.hidden_size, c.vocab_size)
    gradient = once(CHUNK, c.vocab_size, c.hidden_size) + once(c.hidden_size, CHUNK, c.vocab_size)
    found = c.num_hidden_layers * layer(answers * LENGTH, 1, 1) + chunks * (2 * logits + gradient)
    if algorithm == "kto":  # z0: policy and reference, of each prompt with another's answer
        found += 2 * (c.num_hidden_layers * layer(answers * (LENGTH + PROMPT), 1, 0) + chunks * logits)
    return found


def adamw_traffic(clock: Clock, size: int) -> float:
    """Seconds to read parameters, both moments and gradients, and write all but the last."""
    numbers = 2**25
    add = jax.jit(lambda x, y: x + y, donate_argnums=0)
    once = clock(add, jnp.ones(numbers), jnp.ones(numbers), again=lambda made, args: (made, args[1]))
    return once * 28 * size / (12 * numbers)


def parts(clock: Clock, config: Any, model: Any, params: Any, data: Any, steps: int) -> dict[str, float]:
    """Seconds of a step, of its forward pass (the measured loss) and of its optimiser; backward is the rest."""
    algorithm, key = config.make(model, params, steps), jax.random.key(0)
    batch = DataBatch(jax.tree.map(jnp.asarray, data.train[0]), jnp.ones(config.loop.batch_size))
    learner = jax.jit(algorithm.init)(key)
    forward = clock(jax.jit(algorithm.measure), key, learner, batch)

    def apply(weights: Any, opt_state: Any, grads: Any) -> Any:
        return adamw_step(config.optimizer, weights, opt_state, grads, jnp.int32(0), steps)[:2]

    grads = jax.jit(lambda p: jax.tree.map(lambda x: 1e-3 * x, p))(params)
    copied = jax.tree.map(jnp.copy, (learner.trained, learner.opt_state))
    optimiser = clock(jax.jit(apply, donate_argnums=(0, 1)), *copied, grads, again=lambda made, args: (*made, args[2]))
    del copied, grads
    update = jax.jit(lambda learner, batch: algorithm.update(key, learner, batch)[0], donate_argnums=0)
    step = clock(update, learner, batch, again=lambda made, args: (made, args[1]))
    return {"step": step, "forward": forward, "backward": step - forward - optimiser, "optimiser": optimiser}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=("dpo", "kto", "sft"), default="dpo")
    parser.add_argument("--steps", type=int, default=5, help="calls of each part; the first is not timed")
    parser.add_argument("--cpu", action="store_true", help="seconds of CPU, for one core of a busy machine")
    asked = parser.parse_args()
    cli.enable_compilation_cache()
    clock = Clock(time.process_time if asked.cpu else time.perf_counter, asked.steps)
    config, model, base, data = prepared(asked.algorithm, asked.steps, None)
    products = matrix_products(clock, base.config, asked.algorithm, tuning().remat)
    traffic = adamw_traffic(clock, sum(x.size for x in jax.tree.leaves(base.params)))
    found = {"matrix products": products, "adamw's traffic": traffic, "floor": products + traffic}
    found |= parts(clock, config, model, base.params, data, asked.steps)
    found["step / floor"] = found["step"] / found["floor"]
    print(json.dumps({name: round(x, 3) for name, x in found.items()}))


if __name__ == "__main__":
    main()
