"""The likeliest action of an exported policy as an ONNX graph. The only file that imports onnx.

It is written node by node from what the folder holds, and not traced from JAX by jax2onnx, which would need an
environment of its own (it pins an older orbax): a policy is a dozen nodes, and this needs no JAX.

Inputs: each part of an observation with one leading axis N, as "obs", or "obs.a.0" for a part at obs["a"][0]; float32,
or int64 for a discrete one. Output: "action", with that axis, of the action's dtype.
"""

from pathlib import Path
from typing import Any

import numpy as np

from jaxrl.lm.extras import package

# The first with Gelu, and what was current then: older runtimes read it, too.
_OPSET, _IR = 20, 9


def onnx_package() -> Any:
    """Raises InputError where it is not installed."""
    return package("onnx", "ONNX files", "onnx")


def write_graph(path: Path, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write policy.onnx for what policy.json (`about`) and policy.npz (`arrays`) say."""
    onnx = onnx_package()
    nodes = Nodes(onnx)
    out = _network(nodes, about, arrays)
    action = about["action"]
    nodes.put("Identity", _action(nodes, about, arrays, out), name="action")
    helper = onnx.helper
    inputs = [
        helper.make_tensor_value_info(_input(part), nodes.type(_dtype(part)), ["N", *part["shape"]])
        for part in about["observation"]
    ]
    output = helper.make_tensor_value_info("action", nodes.type(action["dtype"]), ["N", *action["shape"]])
    graph = helper.make_graph(nodes.made, "policy", inputs, [output], nodes.constants)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=_IR, producer_name="jaxrl")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(path))


class Nodes:
    """The nodes of a graph as they are put in, and the constants that they read."""

    def __init__(self, onnx: Any):
        self.onnx, self.made, self.constants = onnx, [], []

    def put(self, kind: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Adds a node; returns the name of its output. inputs: such names, or arrays and numbers."""
        name = name or f"{kind.lower()}_{len(self.made)}"
        named = [x if isinstance(x, str) else self._constant(np.asarray(x)) for x in inputs]
        self.made.append(self.onnx.helper.make_node(kind, named, [name], **attributes))
        return name

    def type(self, dtype: str) -> int:
        """ONNX's number for a dtype."""
        return self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))

    def columns(self, x: str, start: int, end: int) -> str:
        """x[:, start:end]."""
        return self.put("Slice", x, *(np.array([i], np.int64) for i in (start, end, 1)))

    def _constant(self, x: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self.onnx.numpy_helper.from_array(x, name))
        return name


def _input(part: dict[str, Any]) -> str:
    return ".".join(["obs", *map(str, part["path"])])


def _dtype(part: dict[str, Any]) -> str:
    return "int64" if part["kind"] == "discrete" else "float32"


def _network(nodes: Nodes, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> str:
    """What the last layer says: normaliser, features and dense layers, as play.py has them."""
    features = []
    for i, part in enumerate(about["observation"]):
        x = _input(part)
        if part["kind"] == "discrete":
            values = part["start"] + np.arange(part["n"], dtype=np.int64)
            same = nodes.put("Equal", nodes.put("Unsqueeze", x, np.array([1])), values)
            features.append(nodes.put("Cast", same, to=nodes.type("float32")))
            continue
        if part["normalized"]:
            clip = np.float32(about["normalizer"]["clip"])
            x = nodes.put("Div", nodes.put("Sub", x, arrays[f"obs_mean_{i}"]), arrays[f"obs_std_{i}"])
            x = nodes.put("Clip", x, -clip, clip)
        features.append(nodes.put("Flatten", x, axis=1))
    x = nodes.put("Concat", *features, axis=1)
    for i in range(len(about["network"]["layers"]) - 1):
        x = _activated(nodes, about["network"]["activation"], x) if i else x
        x = nodes.put("Gemm", x, arrays[f"kernel_{i}"], arrays[f"bias_{i}"])
    return x


def _activated(nodes: Nodes, activation: str, x: str) -> str:
    if activation == "swish":
        return nodes.put("Mul", x, nodes.put("Sigmoid", x))
    if activation == "gelu":
        return nodes.put("Gelu", x, approximate="tanh")
    return nodes.put({"tanh": "Tanh", "relu": "Relu", "elu": "Elu"}[activation], x)


def _action(nodes: Nodes, about: dict[str, Any], arrays: dict[str, np.ndarray], out: str) -> str:
    space, head = about["action"], about["network"]["head"]
    if head == "categorical":
        ends = np.cumsum(space["sizes"])
        blocks = [nodes.columns(out, end - n, end) for end, n in zip(ends, space["sizes"], strict=True)]
        found = nodes.put("Concat", *(nodes.put("ArgMax", x, axis=1) for x in blocks), axis=1)
        counted = nodes.put("Add", found, np.asarray(space["start"], np.int64))
        action = nodes.put("Cast", counted, to=nodes.type(space["dtype"]))
        return action if space["shape"] else nodes.put("Squeeze", action, np.array([1]))
    low, high = arrays["low"], arrays["high"]
    if head == "normal":
        mean = nodes.put("Add", nodes.put("Mul", out, arrays["half"]), arrays["middle"])
        action = nodes.put("Max", nodes.put("Min", mean, high), low)
    else:
        squashed = nodes.put("Tanh", nodes.columns(out, 0, len(low)))
        action = nodes.put("Add", nodes.put("Mul", squashed, (high - low) / 2), (high + low) / 2)
    return nodes.put("Cast", action, to=nodes.type(space["dtype"]))
