"""What the evaluations of a program will tell, before there is one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.types import Learner, Program


class Evaluated(NamedTuple):
    """names: of the columns that evaluations fill. score: the one that is the score, or "-" and the one that is it with
    the other sign; None where no column is."""

    names: list[str]
    score: str | None


def evaluated(p: Program, learners: Learner) -> Evaluated:
    """By reading an evaluation that measured nothing but made-up numbers. learners: shapes, of leading axis [M]."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), learners)
    rng, names, score = np.random.default_rng(0), [], None

    def made_up(x: Any) -> np.ndarray:
        return np.asarray(rng.uniform(1, 2, x.shape)).astype(x.dtype)

    for e in p.evaluators:
        shapes = jax.eval_shape(e.measure, jax.eval_shape(lambda: jax.random.key(0)), one, jnp.int32(0))
        found = e.read(e.cases[0], jax.tree.map(made_up, shapes))
        names += [f"{e.prefix}{name}" for name in found]
        if e.score is not None and score is None:
            told = e.score(found)
            signs = {sign + e.prefix + name: x for name, x in found.items() for sign, x in (("", x), ("-", -x))}
            score = next((name for name, x in signs.items() if x == told), None)
    return Evaluated(names, score)
