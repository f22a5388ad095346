"""Projections with weights packed once: the same product as `F.linear`, two to five times faster.

On a CPU most of a decoding step is reading weights. For few rows a kernel of `cpu` reads them as a
stream, float32 or bfloat16, and asks for what comes next while it still multiplies: a few rows cost
little more than one. Else oneDNN reads them in a layout of its own; told of it in advance, it need
not bring them into that layout on every call.

Shape suffixes: M rows, I input width, O output width.
"""

from typing import Literal, Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from das_lib.adml.cpu.fused import kernels, load_amx
from das_lib.errors import DasError

Precision = Literal["float32", "bfloat16", "bfloat16-all", "float16", "int8"]


def activations(precision: Precision, device: torch.device) -> torch.dtype:
    """What activations are kept in.

    On a CPU, ``bfloat16`` is of the weights that each pass of the decoder reads: that they are half
    as much is its gain, and with a matrix unit that products of many rows may be three of bfloat16,
    see `das_lib.adml.cpu.amx`. What rounding activations and the encoder would add changes tokens;
    that is ``bfloat16-all``. A GPU rounds both.
    """
    if precision == "float16":
        return torch.float16
    if precision == "bfloat16-all" or (precision == "bfloat16" and device.type != "cpu"):
        return torch.bfloat16
    return torch.float32


class Linear(Protocol):
    """x_MI -> act(x_MI @ W_OI^T + b_O), in the activations' dtype."""

    bias_O: torch.Tensor

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """Project the last axis of ``x``; ``gelu`` is the exact one."""
        ...

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        """The same weights, shared, with another bias."""
        ...


def pack(
    weight_OI: torch.Tensor,
    bias_O: torch.Tensor,
    *,
    precision: Precision,
    device: torch.device,
    rows: int | None = None,
) -> Linear:
    """Choose the fastest form of a projection on a device.

    Args:
        weight_OI: float32.
        bias_O: float32; it stays so where the form allows it.
        precision: One that `check_precision` lets pass.
        device: Where it runs.
        rows: How many rows it will mostly see, where they are many: hundreds at least.
    """
    if precision == "int8":
        scale_O = (weight_OI.abs().amax(1).double() / 127).clamp_min(1e-12)
        zero_O = torch.zeros(len(scale_O), dtype=torch.int64)
        return _Int8(torch.quantize_per_channel(weight_OI, scale_O, zero_O, 0, torch.qint8), bias_O)
    dtype = activations(precision, device)
    if precision == "bfloat16" and rows is None:
        weight_OI = weight_OI.bfloat16()
    native = kernels(bias_O) if device.type == "cpu" and dtype == torch.float32 else None
    if native is not None and rows is None:
        return _Streamed(native.pack(weight_OI), bias_O.contiguous())
    amx = load_amx() if device.type == "cpu" and precision == "bfloat16" else None
    if amx is not None and amx.fits(weight_OI):
        return _Split(amx.pack_split(weight_OI), bias_O.contiguous())
    weight_OI = weight_OI.to(dtype)
    if device.type == "cpu" and has_onednn(dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI.contiguous(), rows)
        return _Packed(packed, bias_O)  # float32 at every precision, as the sums are
    return Plain(weight_OI.to(device), bias_O.to(device, dtype))


def project(x: torch.Tensor, weight_OI: torch.Tensor) -> torch.Tensor:
    """X @ W^T for weights that are used once or over many rows: packing them pays at once."""
    if x.device.type == "cpu" and has_onednn(x.dtype):
        packed = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)
        return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return F.linear(x, weight_OI)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse what this device cannot do well.

    Raises:
        DasError: Names the precisions that it can.
    """
    known = ("float32", "bfloat16")
    known += ("bfloat16-all", "int8") if device.type == "cpu" else ("float16",)
    if precision not in known:
        raise DasError(
            f"precision is {precision!r}, on {device.type} it must be one of {', '.join(known)}"
        )


def has_onednn(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's packed product for weights of this type on this CPU.

    For bfloat16 the CPU needs AVX-512; elsewhere the plain product gives the same, slowly.
    """
    available = torch.backends.mkldnn.is_available() and hasattr(
        torch.ops.mkldnn, "_reorder_linear_weight"
    )
    return available and (dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported())


def has_amx() -> bool:
    """Whether the CPU has Intel's matrix unit for bfloat16."""
    return torch.cpu.get_capabilities().get("amx_bf16", False)


def has_vnni() -> bool:
    """Whether the CPU adds up products of 8 bits in 32 bits.

    Without, two products share 16 bits and saturate, so activations are kept to 7 bits.
    """
    found = torch.cpu.get_capabilities()
    x86 = found.get("architecture") in ("x86_64", "AMD64")
    return not x86 or any(found.get(name, False) for name in ("avx512_vnni", "avx_vnni"))


class Plain:
    """Weights as they are."""

    def __init__(self, weight_OI: torch.Tensor, bias_O: torch.Tensor) -> None:
        self.weight_OI, self.bias_O = weight_OI, bias_O

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        """See `Linear`."""
        y = F.linear(x, self.weight_OI, self.bias_O)
        return F.gelu(y) if gelu else y

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        """See `Linear`."""
        return Plain(self.weight_OI, bias_O.to(self.weight_OI))


class _Streamed:
    """Weights for the kernel."""

    def __init__(self, packed: torch.Tensor, bias_O: torch.Tensor) -> None:
        self.packed, self.bias_O = packed, bias_O
        native = kernels(bias_O)
        assert native is not None, "they are packed where the kernel runs"
        self.apply = native.linear

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        y = self.apply(x, self.packed, self.bias_O)
        return F.gelu(y) if gelu else y

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        return _Streamed(self.packed, bias_O.contiguous())


class _Split:
    """Weights for a matrix unit: many rows, more than bfloat16's precision."""

    def __init__(self, packed: torch.Tensor, bias_O: torch.Tensor) -> None:
        self.packed, self.bias_O = packed, bias_O
        amx = load_amx()
        assert amx is not None, "they are packed where the CPU has it"
        self.apply = amx.split_linear

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        y = self.apply(x, self.packed, self.bias_O)
        return F.gelu(y) if gelu else y

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        return _Split(self.packed, bias_O.contiguous())


class _Packed:
    def __init__(self, packed: torch.Tensor, bias_O: torch.Tensor) -> None:
        self.packed, self.bias_O = packed, bias_O
        self.apply = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        if gelu:
            return self.apply(x, self.packed, self.bias_O, "gelu", [], "none")
        return self.apply(x, self.packed, self.bias_O, "none", [], "")

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        return _Packed(self.packed, bias_O.to(self.bias_O))


class _Int8:
    """Weights in 8 bits a channel, activations in 8 bits a call: approximate."""

    def __init__(self, quantized: torch.Tensor, bias_O: torch.Tensor) -> None:
        self.quantized, self.bias_O = quantized, bias_O
        self.packed = torch.ops.quantized.linear_prepack(quantized, bias_O)
        self.reduce_range = not has_vnni()

    def __call__(self, x: torch.Tensor, *, gelu: bool = False) -> torch.Tensor:
        y = torch.ops.quantized.linear_dynamic(x, self.packed, self.reduce_range)
        return F.gelu(y) if gelu else y

    def with_bias(self, bias_O: torch.Tensor) -> "Linear":
        return _Int8(self.quantized, bias_O)
