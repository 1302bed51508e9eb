"""A small network in a session of ONNX Runtime."""

import numpy as np
import pytest


def session(batch=None, size=None, dtype="FLOAT", second=True, names=("pixels", "scale"), single=False):
    """A small network, not equivariant: masks by a convolution with random weights, and scores of a batch."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(3)
    weights = {
        "w": rng.standard_normal((2, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((4, 2)).astype(np.float32).T,
        "axes": np.array([2, 3]),
    }
    pictures = helper.make_tensor_value_info(
        names[0], getattr(TensorProto, dtype), [batch or "N", 3, *(size or ("H", "W"))]
    )
    scale = helper.make_tensor_value_info(names[1], TensorProto.FLOAT, [1])
    rank4 = [batch or "N", 2, *(size or ("H", "W"))]
    made = [helper.make_tensor_value_info("mask", TensorProto.FLOAT, rank4)]
    nodes = [
        helper.make_node("Cast", [names[0]], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["cast", "w"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["conv", names[1]], ["mask"]),
    ]
    if second:
        made.append(helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "N", 4]))
        nodes += [
            helper.make_node("Relu", ["mask"], ["relu"]),
            helper.make_node("ReduceMean", ["relu", "axes"], ["mean"], keepdims=0),
            helper.make_node("MatMul", ["mean", "v"], ["scores"]),
        ]
    if single:
        weights[names[1]] = ONE
    graph = helper.make_graph(
        nodes,
        "g",
        [pictures] if single else [pictures, scale],
        made,
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(model.SerializeToString(), options)


ONE = np.ones(1, np.float32)
