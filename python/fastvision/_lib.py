"""Loads the native library ``_C`` and wraps its ops. Imported first, so that nothing half-works without it."""

import importlib.machinery
import importlib.util
import os
import platform
import re
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ._transforms import loop, transformable

MINIMUM_TORCH = (2, 11)
_REMEDY = (
    "Reinstall with 'pip install --force-reinstall --no-deps fastvision'; 'fastvision doctor' shows the installation."
)


def _load(path: str | None) -> str:
    found = tuple(int(n) for n in re.findall(r"\d+", torch.__version__)[:2])
    if found < MINIMUM_TORCH:
        raise ImportError(
            f"fastvision needs torch >= {MINIMUM_TORCH[0]}.{MINIMUM_TORCH[1]}, found {torch.__version__}: "
            "pip install --upgrade torch"
        )
    if path is None or not os.path.isfile(path):
        where = path or os.path.join(os.path.dirname(__file__), "_C.so")
        raise ImportError(f"fastvision's native library is missing: {where}. {_REMEDY}")
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"fastvision's native library cannot be loaded: {path}: {error.__cause__ or error}. It was built for torch "
            f">= {MINIMUM_TORCH[0]}.{MINIMUM_TORCH[1]}, this is torch {torch.__version__} (CUDA {torch.version.cuda}). "
            f"{_REMEDY}"
        ) from error
    return path


def _load_host() -> str:
    """Imports the part that works on NumPy arrays; returns its path."""
    try:
        return str(importlib.import_module("fastvision._host").__file__)
    except ImportError as error:
        spec = importlib.util.find_spec("fastvision._host")
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        where = spec.origin if spec else os.path.join(os.path.dirname(__file__), f"_host{suffix}")
        raise ImportError(
            f"fastvision's native library is missing or cannot be loaded: {where}: {error}. It must be built for this "
            f"version of Python, {platform.python_version()}. {_REMEDY}"
        ) from error


def _library_path() -> str | None:
    spec = importlib.util.find_spec("fastvision._C")  # also finds it in an editable installation
    return spec.origin if spec else None


LIBRARY_PATH = _load(_library_path())
HOST_LIBRARY_PATH = _load_host()
# Tests also load the CUDA kernels compiled for the CPU (csrc/emulator); no installation has them.
EMULATED_PATH = os.environ.get("FASTVISION_EMULATED")
NAMESPACES = ("fastvision", "fastvision_emulated") if EMULATED_PATH else ("fastvision",)
if EMULATED_PATH:
    _load(EMULATED_PATH)


def build_info() -> dict[str, str]:
    """What the native libraries were built with, what they use on this machine and what is missing.

    The keys are ``version``; ``compiler``; ``torch`` and ``torch_cuda``, the versions in use; ``torch_built_with`` and
    ``torch_floor``, the oldest torch that the library works with (its ABI floor); ``cuda`` and ``cuda_architectures``
    of the kernels inside, empty in a build for CPUs; ``cpu_isa``, what the CPU kernels use, and ``cpu_isa_best``, what
    they could use here; ``cpu_bfloat16`` and ``cpu_float16``, what the processor multiplies such numbers with:
    ``float32`` after widening them, ``vectors``, ``matrices``, or ``unknown``; ``library`` and ``host_library``, the
    files loaded; ``missing``, what cannot be used and what to do about it, empty if all is well. ``fastvision info``
    shows more.
    """
    info = dict(line.split("=", 1) for line in torch.ops.fastvision.build_info().splitlines())
    info |= {"torch": str(torch.__version__), "torch_cuda": torch.version.cuda or ""}
    info |= {"library": LIBRARY_PATH, "host_library": HOST_LIBRARY_PATH}
    return info | {"missing": _missing(info["cuda"], info["torch_cuda"])}


def _missing(cuda: str, torch_cuda: str) -> str:
    if torch_cuda and not cuda:
        return (
            f"CUDA kernels: torch is a CUDA {torch_cuda} build, fastvision was built for CPUs. What to do: install it "
            "from source where nvcc is found: pip install --force-reinstall --no-deps --no-binary fastvision "
            "fastvision -Ccmake.define.FASTVISION_CUDA=ON"
        )
    if cuda and not torch_cuda:
        return "CUDA: fastvision has CUDA kernels, torch is a CPU build. What to do: install a CUDA build of torch"
    return ""


def has_cuda() -> bool:
    """Whether CUDA tensors can be used: CUDA kernels are inside the library and torch sees a device."""
    return bool(build_info()["cuda"]) and torch.cuda.is_available()


def translate(error: RuntimeError) -> Exception:
    """The Python exception for an error of a native op, whose text reads ``op: argument: expected ..., got ...``."""
    text = str(error)
    if ": out of memory: " in text:
        return torch.OutOfMemoryError(text)
    if re.match(r"\w+: [\w ]+: expected dtype ", text):
        return TypeError(text)
    if re.match(r"\w+: [\w ]+: expected ", text):
        return ValueError(text)
    schema = re.search(
        r"::(\w+)\(\) Expected a value of type '([^']*)' for argument '(\w+)' but instead found type '([^']*)'", text
    )
    if schema:
        op, expected, argument, got = schema.groups()
        return TypeError(f"{op}: {argument}: expected {expected}, got {got}")
    return error


_TRANSFORMS = (torch._C._functorch.TransformType.Grad, torch._C._functorch.TransformType.Vmap)


Result = TypeVar("Result")


class Op(Generic[Result]):
    """A native op. Calls it in the active library and raises its errors as TypeError or ValueError.

    In eager mode this goes around the Python autograd kernel of torch.library, which costs more than a small op:
    straight to the backend where nothing needs a gradient, else through an autograd.Function of the same formulas.
    """

    _all: ClassVar[list["Op[Any]"]] = []

    def __init__(self, name: str) -> None:
        self.name = name
        self.overload = getattr(torch.ops.fastvision, name).default
        self.differentiable: Callable[..., Result] | None = None  # the call where a gradient is needed
        self.transformed: Callable[..., Result] | None = None  # the call under torch.func.grad and vmap
        self.vmap_rule: Callable[..., Any] | None = None
        Op._all.append(self)

    def __call__(self, *args: Any) -> Result:
        overload: Callable[..., Result] = self.overload
        try:
            if torch.compiler.is_compiling():
                return overload(*args)
            functorch = torch._C._functorch.peek_interpreter_stack()
            if functorch or forward_ad._current_level >= 0:
                self._refuse_tangents(functorch, args)
                if functorch:
                    if self.transformed and functorch.key() in _TRANSFORMS:
                        return self.transformed(*args)
                    return overload(*args)
            if self.differentiable and torch.is_grad_enabled() and torch._C._any_requires_grad(*args):
                return self.differentiable(*args)
            with torch._C._AutoDispatchBelowAutograd():
                result: Result = self.overload._op(*args)  # what the overload itself calls, without its Python
            return result
        except RuntimeError as error:
            raise translate(error) from None

    def _refuse_tangents(self, functorch: Any, args: tuple[Any, ...]) -> None:
        """torch drops the tangents of an op without forward-mode formula; an error is better."""
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor
        jvp = functorch and functorch.key() == torch._C._functorch.TransformType.Jvp
        for a in args if self.differentiable else ():
            if isinstance(a, torch.Tensor) and (wrapped(a) if jvp else forward_ad.unpack_dual(a).tangent is not None):
                raise RuntimeError(f"{self.name}: forward-mode AD is not supported")


def in_transform() -> bool:
    """Whether a transform of torch.func is at work: it may want a gradient although no tensor requires one."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def may_need_gradient(x: Tensor) -> bool:
    """Whether what only a gradient by ``x`` reads has to be kept."""
    return torch.is_grad_enabled() and (x.requires_grad or in_transform())


def use_namespace(namespace: str) -> None:
    """Make every op call the library of this namespace. For tests."""
    for op in Op._all:
        op.overload = getattr(getattr(torch.ops, namespace), op.name).default


def register_fake(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the shape and dtype of an op's result, and the same checks as the native op."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for namespace in NAMESPACES:
            torch.library.register_fake(f"{namespace}::{name}", function)
        return function

    return register


def register_autograd(
    op: Op[Any], backward: Callable[..., Any], setup_context: Callable[..., Any] | None = None
) -> None:
    """As ``torch.library.register_autograd``, but with None and not zeros where one of several results has no gradient.

    ``setup_context`` may ask for the zeros.
    """
    if setup_context and len(op.overload._schema.returns) > 1:
        backward, setup_context = _without_zeros(op, backward, setup_context)
    for namespace in NAMESPACES:
        torch.library.register_autograd(f"{namespace}::{op.name}", backward, setup_context=setup_context)
    op.transformed = transformable(op, backward, setup_context)
    schema = op.overload._schema
    if any("List[Tensor]" in str(value.type) for value in (*schema.arguments, *schema.returns)):
        op.differentiable = lambda *args: op.overload(*args)  # autograd.Function takes no lists of tensors
        return

    def forward(ctx: Any, *args: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            result = op.overload._op(*args)
        if setup_context:
            setup_context(ctx, args, result)
        return result

    functions = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    function: Any = type(f"{op.name}_function", (torch.autograd.Function,), functions)
    op.differentiable = function.apply


def _without_zeros(
    op: Op[Any], backward: Callable[..., Any], setup_context: Callable[..., Any]
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """torch would make a tensor of zeros for each result without a gradient, as large as the result."""

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        ctx.set_materialize_grads(False)
        setup_context(ctx, inputs, output)

    def of_some(ctx: Any, *grads: Any) -> Any:
        if all(grad is None for grad in grads):
            return (None,) * len(op.overload._schema.arguments)
        return backward(ctx, *grads)

    return of_some, setup


def register_no_gradient(op: Op[Any]) -> None:
    """Differentiating through this op is an error that says so, never a silent zero."""

    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(f"{op.name}: this op has no gradient")

    register_autograd(op, backward)


def register_vmap(op: Op[Any], rule: Callable[..., Any]) -> None:
    """``rule``: as of ``torch.library.register_vmap``."""
    op.vmap_rule = rule
    for namespace in NAMESPACES:
        torch.library.register_vmap(f"{namespace}::{op.name}", rule)


def to_front(t: Tensor, dim: int | None, size: int) -> Tensor:
    """The tensor with its mapped dimension first, repeated there (without a copy) if it has none."""
    return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)


def register_batch_vmap(op: Op[Any], tensors: int) -> None:
    """vmap rule of an op whose first ``tensors`` arguments take leading batch dimensions themselves."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        moved = [
            arg if arg is None else to_front(arg, dim, info.batch_size)
            for arg, dim in zip(args[:tensors], in_dims[:tensors])
        ]
        result = op(*moved, *args[tensors:])
        return result, tuple(0 for _ in result) if isinstance(result, tuple) else 0

    register_vmap(op, rule)


def register_folding_vmap(op: Op[Any], *batched: int) -> None:
    """vmap rule of an op whose arguments at these places and all results have the batch as dimension 0: the mapped
    dimension is folded into it. Where another argument is mapped, a loop."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        if any(dim is not None for k, dim in enumerate(in_dims) if k not in batched):
            return loop(op, info, in_dims, (-1,) * len(args), args)
        folded = list(args)
        for k in batched:
            if args[k] is not None:
                moved = to_front(args[k], in_dims[k], info.batch_size)
                batch = moved.shape[:2]
                folded[k] = moved.flatten(0, 1)
        result = op(*folded)
        if isinstance(result, tuple):
            return tuple(r.unflatten(0, batch) for r in result), tuple(0 for _ in result)
        return result.unflatten(0, batch), 0

    register_vmap(op, rule)


def register_no_vmap(op: Op[Any], instead: str) -> None:
    """vmap of an op whose results differ in size is an error that names what to use instead."""

    def rule(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        raise RuntimeError(f"{op.name}: not possible under vmap, because results differ in size; use {instead}")

    register_vmap(op, rule)


def check(ok: Any, *parts: Any) -> None:
    """For fake kernels: the error that the native op would raise."""
    if not ok:
        raise RuntimeError("".join(str(part) for part in parts))
