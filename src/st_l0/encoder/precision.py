"""Cheaper arithmetic for the transformer below the MLM head, while documents are encoded.

The head and the vectors stay in float32: in lower precision its logits near 0 round to the wrong side, and
documents lose active dims or gain some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from st_l0.encoder.modules import find_encoder_modules
from st_l0.errors import InputError
from st_l0.head.mlm_head import bare_model
from st_l0.head.screening import available as has_fast_int8

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder

PRECISIONS = ("float32", "bfloat16", "int8")

_LARGEST = 127
_TINY = 1e-30


@contextmanager
def encoder_precision(model: SparseEncoder, precision: str) -> Iterator[None]:
    """Run the transformer below the MLM head in another precision; what it computes is float32 again.

    - ``"float32"``: as it is.
    - ``"bfloat16"``: autocast. Fast where the processor has bfloat16 instructions, slow where it has none.
    - ``"int8"``: each linear layer multiplies 8-bit integers, with a scale for each token and each output,
      and adds them up in 32 bits; everything between the layers is float32. Only for processors with 8-bit
      products (AVX-512 VNNI, AVX-VNNI, AMX).

    Args:
        model: The encoder; its weights stay as they are.
        precision: One of the three.

    Raises:
        InputError: Another precision, one that this device cannot compute, or documents go through something
            else than a masked language model.
    """
    if precision not in PRECISIONS:
        raise InputError(f"dtype must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision == "float32":
        yield
        return
    modules = find_encoder_modules(list(model.children()))
    if modules is None:
        raise InputError(f"{precision} needs a masked language model on the document side")
    transformer = bare_model(modules.transformer.model).base_model
    replaced: dict[nn.Module, Callable[..., Any]] = {}
    if precision == "bfloat16":
        replaced[transformer] = _autocast(transformer.forward, model.device.type)
    else:
        if model.device.type != "cpu" or not has_fast_int8():
            raise InputError("int8 needs a CPU with 8-bit products (AVX-512 VNNI, AVX-VNNI or AMX)")
        for module in transformer.modules():
            if isinstance(module, nn.Linear):
                replaced[module] = _Int8Linear(module)
    own = {module: vars(module)["forward"] for module in replaced if "forward" in vars(module)}
    for module, forward in replaced.items():
        module.forward = forward
    try:
        yield
    finally:
        for module in replaced:
            if module in own:
                module.forward = own[module]
            else:
                del module.forward  # of the instance; that of the class shows again


def _autocast(forward: Callable[..., Any], device: str) -> Callable[..., Any]:
    def cast_forward(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            output = forward(*args, **kwargs)
        output.last_hidden_state = output.last_hidden_state.float()
        return output

    return cast_forward


class _Int8Linear:
    """The forward pass of a linear layer on 8-bit integers."""

    def __init__(self, linear: nn.Linear) -> None:
        with torch.no_grad():
            self._weight, self._scale = _quantize(linear.weight)
        self._bias = linear.bias

    def __call__(self, given: Tensor) -> Tensor:
        with torch.no_grad():
            tokens, scale = _quantize(given.reshape(-1, given.shape[-1]))
            product = torch._int_mm(tokens, self._weight.T).float()
            product.mul_(scale).mul_(self._scale.T)
            if self._bias is not None:
                product.add_(self._bias)
            return product.view(*given.shape[:-1], -1)


def _quantize(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows as whole multiples of a 127th of their largest value: int8, and the scales ``(rows, 1)``."""
    scale = rows.abs().amax(1, keepdim=True).div_(_LARGEST).clamp_(min=_TINY)
    return (rows / scale).round_().to(torch.int8), scale
