"""The ONNX graph acts as the NumPy runner does, in another runtime."""

import numpy as np
import pytest

from jaxrl.runs.exporting.graph import write_graph
from jaxrl.runs.exporting.play import Policy
from tests.helpers.policies import KINDS, observations, written

pytestmark = pytest.mark.extra("onnx")


def fed(about, obs):
    """The parts of observations by the names of the graph's inputs."""
    named = {}
    for part in about["observation"]:
        x = obs
        for at in part["path"]:
            x = x[at]
        kind = np.int64 if part["kind"] == "discrete" else np.float32
        named[".".join(["obs", *map(str, part["path"])])] = np.asarray(x, kind)
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_as_the_runner_does(kind, tmp_path):
    import onnxruntime

    spaces, about, arrays = written(kind, tmp_path)
    write_graph(tmp_path / "policy.onnx", about, arrays)
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 500):
        obs = observations(spaces.observation, n)
        (action,) = session.run(["action"], fed(about, obs))
        expected = Policy(tmp_path)(obs)
        assert action.dtype == expected.dtype and action.shape == expected.shape
        assert np.abs(action - expected).max() < 1e-5
