"""Products of a quantized network's codes as nodes of an ONNX graph."""

from __future__ import annotations

from typing import Any

import numpy as np


class CodesInGraph:
    """What the graph that cydrop.onnx writes knows of codes; methods take and return names of values.

    A dense layer's weight is int8, and what comes into it passes through uint8, by QuantizeLinear and DequantizeLinear.
    """

    add: Any
    constant: Any
    integers: Any
    parameter: Any
    onnx: Any
    arrays: dict[str, Any]
    place: str
    members: int

    def factors(self, x: str) -> tuple[str, str]:
        """Of a dense layer's product: the rows and the weight, or what codes of one byte make of them."""
        if f"{self.place}.weight_scale" not in self.arrays:
            return x, self.parameter("weight")
        codes = self.constant("weight_codes", self.arrays[f"{self.place}.weight"], np.int8)
        weight = self.add("DequantizeLinear", codes, self.parameter("weight_scale"), axis=1)
        return self.quantized_rows(x), weight

    def product(self, x: str) -> str:
        """The members' rows times the weight that they share. Of codes all rows at once: ONNX Runtime (1.32) carries a
        DequantizeLinear of rows past a Reshape, where its scales are those of others."""
        if f"{self.place}.weight_scale" not in self.arrays:
            return str(self.add("MatMul", x, self.parameter("weight")))
        n_in, units = self.arrays[f"{self.place}.weight"].shape
        y = self.add("Gemm", *self.factors(self.add("Reshape", x, self.integers("rows", [-1, n_in]))))
        return str(self.add("Reshape", y, self.integers("members", [self.members, -1, units])))

    def quantized_rows(self, x: str) -> str:
        """x through codes of one byte, a scale and a zero for each row, as `functional.quantize_rows` has them."""
        nought, levels = self.constant("nought", 0.0), self.constant("levels", 255.0)
        low = self.add("Min", self.add("ReduceMin", x, axes=[1], keepdims=0), nought)
        high = self.add("Max", self.add("ReduceMax", x, axes=[1], keepdims=0), nought)
        span = self.add("Sub", self.add("Div", high, levels), self.add("Div", low, levels))
        scale = self.add("Where", self.add("Greater", span, nought), span, self.constant("one", 1.0))
        zero = self.add(
            "Cast", self.add("Round", self.add("Div", self.add("Neg", low), scale)), to=self.onnx.TensorProto.UINT8
        )
        codes = self.add("QuantizeLinear", x, scale, zero, axis=0)
        return str(self.add("DequantizeLinear", codes, scale, zero, axis=0))
