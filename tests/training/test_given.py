"""What a run is given: arrays apart from the rest, and told by what it is."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.data.fingerprints import fingerprint, name_of
from jaxrl.networks import actor_critic
from jaxrl.spaces import Box, Discrete, Spaces
from jaxrl.training.given import describe, split_given
from tests.helpers.environments import Counter


def test_arrays_are_split_from_the_rest_and_joined_again():
    given = {"env": Counter(), "network": (len, 3), "data": np.arange(4), "nothing": None}
    arrays, join = split_given(given)
    assert [x.shape for x in arrays] == [(4,), ()]
    doubled = join([2 * x for x in arrays])
    assert doubled["env"].step_size == 2 and doubled["network"] == (len, 3) and doubled["data"][3] == 6
    assert jax.tree.structure(join(arrays)) == jax.tree.structure(given)


def test_things_that_are_equal_have_equal_fingerprints_and_others_have_others():
    spaces = Spaces(Box((4,)), Discrete(2))

    def network(**changes):
        return actor_critic(spaces, **{"hidden": (8, 8), **changes})

    def scaled(by):
        return lambda x: by * x

    same = [
        lambda: network(),
        lambda: Counter(jnp.ones(())),
        lambda: scaled(2),
        lambda: jax.jit(scaled(2)),
        lambda: partial(scaled, by=2),
        lambda: {"a": (1, 2.0), "b": np.arange(3)},
        lambda: jax.random.key(0),
        lambda: actor_critic(spaces).init(jax.random.key(0)),
    ]
    for make in same:
        assert fingerprint(make()) == fingerprint(make())
    different = [
        network(),
        network(activation="relu"),
        network(hidden=(8, 9)),
        network(init_std=0.5),
        Counter(),
        Counter(jnp.asarray(0.5)),
        Counter(time_limit=3),
        scaled(2),
        scaled(3),
        jax.random.key(0),
        jax.random.key(1),
        np.zeros(3, np.float32),
        np.zeros(3, np.int32),
        np.zeros((3, 1), np.float32),
        {"a": 1},
        {"a": 2},
        [1, 2],
        (1, 2),
        None,
        lambda x: x + 1,
        lambda x: x - 1,
    ]
    assert len({fingerprint(x) for x in different}) == len(different)


def test_a_thing_that_holds_itself_has_an_end():
    knot: list = [1]
    knot.append(knot)
    assert fingerprint(knot) == fingerprint(knot)


def test_what_is_given_is_named_for_people():
    about = describe({"env": Counter(), "network": None})
    assert set(about) == {"env"} and about["env"]["is"] == "tests.helpers.environments:Counter"
    assert name_of(Counter) == name_of(Counter()) == "tests.helpers.environments:Counter"


ACROSS = """
import jax
from jaxrl import make
from jaxrl.networks import actor_critic
from jaxrl.data.fingerprints import fingerprint
from jaxrl.spaces import Box, Discrete, Spaces
network = actor_critic(Spaces(Box((4,)), Discrete(2)), hidden=(8,))
things = [make("gymnax/Pendulum-v1"), make("brax/inverted_pendulum", backend="spring"), network]
things += [network.init(jax.random.key(0)), jax.random.key(3), {"b": 1, "a": {2.0, "x"}}]
print(*map(fingerprint, things))
"""


def test_fingerprints_are_the_same_in_another_process():
    found = [
        subprocess.run([sys.executable, "-c", ACROSS], capture_output=True, text=True, check=True, env=env).stdout
        for env in ({**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2"))
    ]
    assert found[0] == found[1] and len(set(found[0].split())) == 6
