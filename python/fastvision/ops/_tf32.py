"""Torch's switches for rounding float32 factors to TF32 on CUDA, where tensor cores multiply them."""

import torch


def in_products() -> bool:
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def in_convolutions() -> bool:
    return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


# A compiled function keeps what the switch was at compilation. This is what torch.compiler.assume_constant_result does,
# after importing torch's compiler, which takes longer than all of this package.
in_products._dynamo_marked_constant = True  # type: ignore[attr-defined]
in_convolutions._dynamo_marked_constant = True  # type: ignore[attr-defined]
