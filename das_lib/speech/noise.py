"""ONNX voices that say a text the same way each time.

A VITS graph draws its noise inside (RandomNormalLike), from a generator that goes on from call to
call: a recording then depends on what the same process spoke before, and a resumed run hears other
speech. Here the noise is an input, cut from one table at places that follow from the text.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from das_lib.models.onnx import thread_options

NOISE, SEED = 1 << 22, 0
"""Values of the table: 30 s of speech take an eighth of it, and a cut begins in its first half."""
RANDOM, INPUT = "RandomNormalLike", "das_noise"
ZERO, ONE = f"{INPUT}_zero", f"{INPUT}_one"  # constants


class SeededSession:
    """An onnxruntime session whose random tensors are cut from a table; as one, it has ``run``."""

    def __init__(self, path: str | Path, threads: int) -> None:
        """Load a voice, its random nodes rewritten.

        A node ``y = RandomNormalLike(x)`` becomes ``y = Reshape(noise[:Size(x)], Shape(x))``, with
        ``noise`` a new input.
        """
        import onnx
        import onnxruntime

        model = onnx.load(str(path))
        inputs = []
        nodes = []
        for node in model.graph.node:
            if node.op_type != RANDOM or any(a.name in ("mean", "scale") for a in node.attribute):
                nodes.append(node)
                continue
            name = f"{INPUT}_{len(inputs)}"
            inputs.append(name)
            nodes += _cut(onnx.helper, name, node.input[0], node.output[0])
            model.graph.input.append(
                onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None])
            )
        for name, value in ((ZERO, 0), (ONE, 1)):
            constant = onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [1], [value])
            model.graph.initializer.append(constant)
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        self._session = onnxruntime.InferenceSession(
            model.SerializeToString(),
            thread_options(threads),
            providers=["CPUExecutionProvider"],
        )
        self._inputs = inputs
        self._table = np.random.default_rng(SEED).standard_normal(NOISE, dtype=np.float32)
        self.seed("")

    def seed(self, text: str) -> None:
        """Begin the noise of a text."""
        self._random = random.Random(text)

    def run(
        self, outputs: Sequence[str] | None, feeds: dict[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """As onnxruntime's; each call takes the next noise."""
        noise = {name: self._table[self._random.randrange(NOISE // 2) :] for name in self._inputs}
        return self._session.run(outputs, feeds | noise)  # type: ignore[return-value]


def _cut(helper: Any, noise: str, like: str, out: str) -> list[Any]:
    """Nodes that shape the first values of ``noise`` as ``like``."""
    size, count = f"{out}_size", f"{out}_count"
    return [
        helper.make_node("Shape", [like], [f"{out}_shape"]),
        helper.make_node("Size", [like], [size]),
        helper.make_node("Reshape", [size, ONE], [count]),
        helper.make_node("Slice", [noise, ZERO, count], [f"{out}_cut"]),
        helper.make_node("Reshape", [f"{out}_cut", f"{out}_shape"], [out]),
    ]
