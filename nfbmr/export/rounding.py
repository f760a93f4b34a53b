r"""Rounding to 16 bits in float32 arithmetic, for a runtime that leaves casts to 16 bits out.

OpenVINO's CPU plugin, asked for float32, takes every float16 in the graph for float32, and a cast there and
back does nothing. Features, however, are rounded as the store rounds them: without it, scores move by
thousandths of their spread. So each cast is preceded by the same rounding as numbers, whose result the cast
leaves alone. Casts to bfloat16 were seen to round, on a processor that has it; they are treated likewise.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BITS = {"FLOAT16": (11, -14, 15), "BFLOAT16": (8, -100, 127)}
"""Significant bits, and the least and greatest exponent of 2, by ONNX's name of a type.

bfloat16 goes down to -126; its step there is a number that processors may take for zero.
"""


def round_before_casts(graph: Any) -> int:
    r"""Put a rounding before each cast to 16 bits.

    With p significant bits and :math:`e = \lfloor \log_2 |x| \rfloor`, x becomes the nearest multiple of
    :math:`2^{e-p+1}`, of two equally near the even one. A logarithm that is off by rounding does no harm:
    next to a power of two, both steps lead to it.

    Args:
        graph: Graph of an ``onnx_ir`` model; changed in place.

    Returns:
        How many there were.
    """
    import onnx_ir as ir

    casts = [node for node in graph if node.op_type == "Cast" and _type_cast_to(node) in BITS]
    for number, cast in enumerate(casts):
        bits, least, greatest = BITS[_type_cast_to(cast)]
        exponents = np.arange(least, greatest + 1)
        constants = {
            "smallest": np.float32(1.5 * 2.0**least),  # not next to a power of two
            "largest": np.float32(1.5 * 2.0**greatest),
            "per_octave": np.float32(1.0 / np.log(2.0)),
            "first": np.float32(-least),
            "steps": np.exp2(exponents - (bits - 1.0)).astype(np.float32),
        }
        values = {name: _constant(graph, f"round_{number}_{name}", of) for name, of in constants.items()}
        made: list[ir.Node] = []

        def add(op: str, *inputs: Any, made: list[ir.Node] = made, **attributes: int) -> Any:
            made.append(ir.node(op, inputs, attributes))
            return made[-1].outputs[0]

        x = cast.inputs[0]
        size = add("Clip", add("Abs", x), values["smallest"], values["largest"])
        octave = add("Mul", add("Log", size), values["per_octave"])
        row = add("Cast", add("Add", add("Floor", octave), values["first"]), to=int(ir.DataType.INT64))
        step = add("Gather", values["steps"], row)
        rounded = add("Mul", add("Round", add("Div", x, step)), step)
        for position, node in enumerate(made):
            node.name = node.outputs[0].name = f"round_{number}_{position}"
        graph.insert_before(cast, made)
        cast.replace_input_with(0, rounded)
    return len(casts)


def _type_cast_to(cast: Any) -> str:
    import onnx_ir as ir

    return ir.DataType(cast.attributes["to"].as_int()).name


def _constant(graph: Any, name: str, of: Any) -> Any:
    import onnx_ir as ir

    value = ir.val(name, const_value=ir.tensor(np.asarray(of), name=name))
    graph.register_initializer(value)
    return value
