"""Checks an ONNX graph before ONNX Runtime sees it, so that a graph from a stranger can compute a picture and do nothing else.

ONNX Runtime loads an initializer whose data is "external" from any file that it names, and runs a loop for 2^62 rounds. Both
are found by reading the graph's protocol buffers; github.com/onnx/onnx/blob/main/onnx/onnx.proto numbers their fields.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from gcodec.errors import UserError

MAX_BYTES = 2**18  # of a graph; those that ship have 41 kB, because their weights are elsewhere
OPERATORS = frozenset({  # none has a graph in it, as Loop, If and Scan have
    "Abs", "Add", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "Conv", "ConvTranspose",
    "DepthToSpace", "Div", "Elu", "Erf", "Exp", "Expand", "Flatten", "Gather", "Gelu", "Gemm", "GlobalAveragePool",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LayerNormalization", "LeakyRelu",
    "Log", "MatMul", "Max", "MaxPool", "Min", "Mish", "Mul", "Neg", "PRelu", "Pad", "Pow", "Reciprocal", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "Resize", "Selu", "Shape", "Sigmoid", "Slice", "Softmax",
    "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tanh", "Tile", "Transpose",
    "Unsqueeze", "Where",
})  # fmt: skip
FLOAT32 = 1
TYPES = {"float32": FLOAT32, "int32": 6, "int64": 7, "float16": 10, "float64": 11}  # onnx.TensorProto.DataType


class Message(dict[int, list]):
    """The fields of a protocol buffer: their values by number, in their order; an integer, or bytes."""

    def __init__(self, data: bytes):
        """Raises ValueError for bytes that are none."""
        position = 0
        while position < len(data):
            key, position = _varint(data, position)
            number, kind = key >> 3, key & 7
            value: int | bytes
            if kind == 0:
                value, position = _varint(data, position)
            else:
                size, position = _varint(data, position) if kind == 2 else ({1: 8, 5: 4}[kind], position)
                value, position = data[position : position + size], position + size
            self.setdefault(number, []).append(value)
        if position > len(data):
            raise ValueError("it is cut short")

    def one(self, number: int, default: int | bytes = b"") -> "int | bytes":
        """Return the value of a field that stands at most once. Of several, other readers might take another."""
        values = self.get(number, [default])
        if len(values) > 1:
            raise ValueError(f"field {number} is there twice")
        return values[0]

    def text(self, number: int) -> str:
        return bytes(self.one(number)).decode()

    def messages(self, number: int) -> Iterator["Message"]:
        return (Message(bytes(value)) for value in self.get(number, []))


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if position >= len(data):
            raise ValueError("it is cut short")
        number |= (data[position] & 127) << shift
        position += 1
        if data[position - 1] < 128:
            return number & 2**64 - 1, position
    raise ValueError("a number is too long")


def check_graph(data: bytes, inputs: Sequence[tuple[int | None, ...]], weights: Mapping[str, np.ndarray]) -> None:
    """Raise UserError unless a graph is one that may run.

    inputs: the shape of each of the graph's inputs, None where it depends on the image. weights: what the graph's external
    initializers must be, by name.
    """
    try:
        model = Message(data)
        graph = Message(bytes(model.one(7)))
        if model.keys() & {20, 25} or graph.get(15):
            raise UserError("has functions, training steps or sparse initializers")
        if [_shape(value) for value in graph.messages(11)] != list(inputs) or len(graph.get(12, [])) != 1:
            raise UserError(f"its inputs are not {', '.join(map(str, inputs))} as its knobs want, or it has several outputs")
        initializers = list(graph.messages(5))
        if len({tensor.text(8) for tensor in initializers}) < len(initializers):
            raise UserError("has two initializers of one name")
        for tensor in filter(_is_external, initializers):
            array = weights.get(tensor.text(8))
            if array is None or _dims(tensor) != array.shape or tensor.one(2, 0) != TYPES.get(array.dtype.name):
                raise UserError(f"wants {tensor.text(8)!r} from a file, which is none of the weights in model.npz")
        for node in graph.messages(1):
            _check_node(node)
    except (KeyError, ValueError) as error:  # UnicodeDecodeError is one
        raise UserError(f"is no ONNX graph ({error})") from None


def _check_node(node: Message) -> None:
    kind = node.text(4)
    if node.text(7) not in ("", "ai.onnx") or kind not in OPERATORS:
        raise UserError(f"has the operator {kind!r}, which is none of those that image networks need")
    for attribute in node.messages(5):
        tensors = [*attribute.messages(5), *attribute.messages(10)]
        if attribute.keys() & {6, 11, 22, 23} or any(map(_is_external, tensors)):
            raise UserError(f"its operator {kind!r} has a graph or a file in it")


def _shape(value: Message) -> tuple[int | None, ...]:
    """Return the shape of an input of float32 numbers, None for a side that is open; (-1,) for an input of another kind."""
    tensor = Message(bytes(Message(bytes(value.one(2))).one(1)))
    if tensor.one(1, 0) != FLOAT32:
        return (-1,)
    sides = Message(bytes(tensor.one(2))).messages(1)
    return tuple(int(side.one(1)) if 1 in side else None for side in sides)


def _dims(tensor: Message) -> tuple[int, ...]:
    dims: list[int] = []
    for value in tensor.get(1, []):
        if isinstance(value, int):
            dims.append(value)
            continue
        position = 0
        while position < len(value):  # packed
            number, position = _varint(value, position)
            dims.append(number)
    return tuple(dims)


def _is_external(tensor: Message) -> bool:
    return bool(tensor.keys() & {13, 14})
