"""torchvision on the ops of fastvision: unmodified detectors run on them, and public checkpoints load into our models.

``accelerate()`` works on two levels. Operators that torchvision registers with torch (``torchvision::roi_align``) get
other kernels in torch's dispatcher, which reaches scripted and compiled models too. Functions that torchvision writes
in Python are replaced wherever a loaded module has bound them to a name.
"""

import functools
import importlib
import importlib.util
import operator
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, TracebackType
from typing import Any

import torch
from torch import Tensor

from .. import _lib, ops
from ..models import classification, detection
from ..ops._regions import as_rois
from ..ops.roi_pool import _op as _roi_pool_op

_SIXTEEN_BITS = (torch.float16, torch.bfloat16)


def _roi_align(
    input: Tensor, rois: Tensor, scale: float, height: int, width: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    return ops.roi_align(input, rois, (height, width), scale, sampling_ratio, aligned)


def _roi_pool(input: Tensor, rois: Tensor, scale: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    rois = as_rois("roi_pool", rois, input.shape[0], input.dtype)
    return _roi_pool_op(input, rois, scale, height, width, True)


def _with_channels(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operator returns the input channel of each output, too."""

    def pooled(input: Tensor, rois: Tensor, scale: float, height: int, width: int, *rest: Any) -> tuple[Tensor, Tensor]:
        output = function(input, rois, (height, width), scale, *rest)
        channels = torch.arange(input.shape[1], dtype=torch.int32, device=input.device)
        return output, channels.view(1, -1, height, width).expand(output.shape).contiguous()

    return pooled


def _deform_conv2d(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor,
    bias: Tensor,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,  # the shapes say how many there are of both kinds
    offset_groups: int,
    use_mask: bool,
) -> Tensor:
    geometry = (stride_h, stride_w), (pad_h, pad_w), (dilation_h, dilation_w)
    return ops.deform_conv2d(input, offset, weight, bias, *geometry, mask if use_mask else None)


_ROI = "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"

# Operators in torch's dispatcher: schema and kernel. The kernel brings its own gradient.
_OPERATORS: dict[str, tuple[str, Callable[..., Any]]] = {
    "deform_conv2d": (
        "(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, SymInt stride_h, SymInt stride_w, "
        "SymInt pad_h, SymInt pad_w, SymInt dilation_h, SymInt dilation_w, SymInt groups, SymInt offset_groups, "
        "bool use_mask) -> Tensor",
        _deform_conv2d,
    ),
    "nms": ("(Tensor dets, Tensor scores, float iou_threshold) -> Tensor", ops.nms),
    "ps_roi_align": (_ROI + ", int sampling_ratio) -> (Tensor, Tensor)", _with_channels(ops.ps_roi_align)),
    "ps_roi_pool": (_ROI + ") -> (Tensor, Tensor)", _with_channels(ops.ps_roi_pool)),
    "roi_align": (_ROI + ", int sampling_ratio, bool aligned) -> Tensor", _roi_align),
    "roi_pool": (_ROI + ") -> (Tensor, Tensor)", _roi_pool),
}


def _pairwise(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """torchvision promotes boxes of different dtypes, and 16-bit boxes to float32."""

    @functools.wraps(function)
    def promoted(boxes1: Tensor, boxes2: Tensor, *args: Any, **keywords: Any) -> Tensor:
        dtype = torch.promote_types(boxes1.dtype, boxes2.dtype)
        dtype = torch.float32 if dtype in _SIXTEEN_BITS else dtype
        return function(boxes1.to(dtype), boxes2.to(dtype), *args, **keywords)

    return promoted


def _batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float) -> Tensor:
    groups = idxs.unique(return_inverse=True)[1] if idxs.is_floating_point() else idxs
    return ops.batched_nms(boxes, scores, groups, iou_threshold)


def _sigmoid_focal_loss(
    inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2, reduction: str = "none"
) -> Tensor:
    return ops.sigmoid_focal_loss(inputs, targets.to(inputs.dtype), alpha, gamma, reduction)


def _multiscale_roi_align(
    x_filtered: list[Tensor],
    boxes: list[Tensor],
    output_size: Sequence[int],
    sampling_ratio: int,
    scales: list[float],
    mapper: Callable[[list[Tensor]], Tensor],
) -> Tensor:
    # The mapper's rule and not ours, which agrees only where each map has half the scale of the one before.
    levels = mapper(boxes) if len(x_filtered) > 1 else None
    return ops.multiscale_roi_align(
        x_filtered, boxes, output_size, scales, sampling_ratio=sampling_ratio, levels=levels
    )


# Functions of torchvision.ops, by the name they have there.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "batched_nms": _batched_nms,
    "box_area": ops.box_area,
    "box_convert": ops.box_convert,
    "box_iou": _pairwise(ops.box_iou),
    "clip_boxes_to_image": ops.clip_boxes_to_image,
    "complete_box_iou": _pairwise(ops.complete_box_iou),
    "complete_box_iou_loss": _pairwise(ops.complete_box_iou_loss),
    "deform_conv2d": ops.deform_conv2d,
    "distance_box_iou": _pairwise(ops.distance_box_iou),
    "distance_box_iou_loss": _pairwise(ops.distance_box_iou_loss),
    "generalized_box_iou": _pairwise(ops.generalized_box_iou),
    "generalized_box_iou_loss": _pairwise(ops.generalized_box_iou_loss),
    "masks_to_boxes": ops.masks_to_boxes,
    "nms": ops.nms,
    "poolers._multiscale_roi_align": _multiscale_roi_align,
    "ps_roi_align": ops.ps_roi_align,
    "ps_roi_pool": ops.ps_roi_pool,
    "remove_small_boxes": ops.remove_small_boxes,
    "roi_align": ops.roi_align,
    "roi_pool": ops.roi_pool,
    "sigmoid_focal_loss": _sigmoid_focal_loss,
}

_ROTATED = ("xywhr", "cxcywhr", "xyxyxyxy")
_lock = threading.RLock()
_active: "_Replacements | None" = None
_libraries: dict[str, torch.library.Library] = {}  # a library's registrations live as long as the object


def _devices() -> tuple[str, ...]:
    return ("cpu", "cuda") if _lib.build_info()["cuda"] else ("cpu",)


def _accepts(devices: tuple[str, ...], values: tuple[Any, ...]) -> bool:
    """Whether these arguments are ours: ordinary tensors on devices that we have kernels for, boxes along the axes."""
    for value in values:
        if isinstance(value, str) and value in _ROTATED:
            return False
        if isinstance(value, Tensor):
            if value.device.type not in devices or value.is_quantized:
                return False
        elif isinstance(value, (list, tuple)) and not _accepts(devices, tuple(value)):
            return False
    return True


def _switch(name: str, key: str, ours: Callable[..., Any]) -> Callable[..., Any]:
    """A kernel that is ours while torchvision is accelerated and else what it replaces."""
    try:
        theirs = torch.library.get_kernel(f"torchvision::{name}", key)
    except RuntimeError:  # a torchvision without CUDA
        theirs = None

    def kernel(keys: torch.DispatchKeySet, *args: Any) -> Any:
        if _active is not None:
            return ours(*args)
        if theirs is None:
            raise NotImplementedError(f"torchvision::{name}: this torchvision has no kernel for {key}")
        return theirs.call_boxed(keys, *args)

    return kernel


def _register_switches() -> None:
    """Once, for good: taking a kernel out of torch's dispatcher while another thread runs it ends the process."""
    if "switches" in _libraries:
        return
    library = torch.library.Library("torchvision", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"[\s\S]*Overriding a previously registered kernel", UserWarning)
        for name, (_, ours) in _OPERATORS.items():
            # Below autograd for inference mode and compiled graphs, above it for a gradient of our own.
            for key in [f"{prefix}{device.upper()}" for prefix in ("Autograd", "") for device in _devices()]:
                library.impl(name, _switch(name, key, ours), key, with_keyset=True, allow_override=True)
    _libraries["switches"] = library


class _Replacements:
    """What :func:`accelerate` has changed, to be undone."""

    def __init__(self, torchvision: ModuleType) -> None:
        devices = _devices()
        _register_switches()
        self.originals: dict[int, tuple[Any, Any]] = {}  # by id: the original, what stands in for it
        self.names: list[str] = sorted(f"torchvision::{name}" for name in _OPERATORS)
        for name, ours in _FUNCTIONS.items():
            try:
                theirs = operator.attrgetter(name)(torchvision.ops)
            except AttributeError:  # a function that this version does not have
                continue
            self.originals[id(theirs)] = theirs, _stand_in(theirs, ours, (*devices, "meta"))
            self.names.append(f"torchvision.ops.{name}")
        _rebind(self.originals)

    def undo(self) -> None:
        _rebind({id(ours): (ours, theirs) for theirs, ours in self.originals.values()})


def _stand_in(theirs: Callable[..., Any], ours: Callable[..., Any], devices: tuple[str, ...]) -> Callable[..., Any]:
    @functools.wraps(theirs)
    def stand_in(*args: Any, **keywords: Any) -> Any:
        values = (*args, *keywords.values())
        # What is traced or exported must run where fastvision is not installed.
        exported = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
        if exported or not _accepts(devices, values):
            return theirs(*args, **keywords)
        return ours(*args, **keywords)

    # TorchScript compiles torchvision's own function instead, whose operators are ours anyway.
    vars(stand_in).update({"__script_if_tracing_wrapper": True, "__original_fn": theirs})
    return stand_in


def _rebind(values: Mapping[int, tuple[Any, Any]]) -> None:
    """Replace values wherever a loaded module has bound one to a name."""
    for module in list(sys.modules.values()):
        if not isinstance(module, ModuleType):
            continue
        for name, value in list(vars(module).items()):
            old, new = values.get(id(value), (None, None))
            if old is value and new is not None:
                setattr(module, name, new)


class Acceleration:
    """What :func:`accelerate` returns. As a context manager it restores torchvision at the end of the block, unless it
    was accelerated before.

    names: the operators (``torchvision::nms``) and functions (``torchvision.ops.box_iou``) that run on fastvision.
    """

    def __init__(self, names: Sequence[str], *, was_active: bool) -> None:
        self.names = tuple(names)
        self._was_active = was_active

    def __enter__(self) -> "Acceleration":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if not self._was_active:
            restore()

    def __repr__(self) -> str:
        return f"Acceleration({', '.join(self.names)})"


def accelerate() -> Acceleration:
    """Run torchvision's operators on fastvision until :func:`restore`; a second call changes nothing.

    Models need no change, in inference or training. Functions that a module has bound to a name
    (``from torchvision.ops import nms``) are replaced there too; a model that has stored one in an attribute, as
    torchvision's ``RegionProposalNetwork`` does with ``box_iou``, keeps it if it was built before. Calls under
    ``torch.jit.trace`` and ``torch.export``, of TorchScript, and on devices without kernels of ours go to torchvision's
    functions.

    Results are torchvision's except where docs/differences.md says otherwise. Safe to call from several threads, and
    while others compute; but torch's dispatcher wants no other thread in these operators when the first call of a
    process puts a switch into each of them.

    Returns:
        :class:`Acceleration`, also a context manager: ``with accelerate(): ...``.

    Raises:
        ImportError: torchvision is not installed, or its library does not load beside this torch (see
            :func:`provide`).
    """
    global _active
    with _lock:
        was_active = _active is not None
        if _active is None:
            _active = _Replacements(_import_torchvision())
        return Acceleration(_active.names, was_active=was_active)


def restore() -> None:
    """Undo :func:`accelerate`: operators and names do again what they did. Does nothing without it."""
    global _active
    with _lock:
        if _active is not None:
            _active.undo()
            _active = None


def provide() -> None:
    """Make torchvision importable where its compiled library does not load, with fastvision's operators in its place.

    The library of a torchvision is built for one version and CUDA flavour of torch; beside another,
    ``import torchvision`` fails with "operator torchvision::nms does not exist". After this call its Python half
    works: models, transforms, and those of its operators that fastvision has. Call it before anything imports
    torchvision. It lasts as long as the process, and does nothing where torchvision's own library loads.

    Raises:
        ImportError: torchvision is not installed.
    """
    with _lock:
        _require_installed()
        try:
            torchvision = importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::" not in str(error):
                raise
        else:
            if torchvision.extension._has_ops():
                return
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("qnms" + _OPERATORS["nms"][0])  # torchvision registers a fake kernel of it
        library.define("_cuda_version() -> int")
        library.impl("_cuda_version", lambda: -1, "CompositeExplicitAutograd")
        for name, (schema, kernel) in _OPERATORS.items():
            library.define(name + schema)
            # torchvision registers a fake kernel of nms, which cannot be where a composite kernel is.
            keys = ("CPU", "CUDA")[: len(_devices())] if name == "nms" else ("CompositeImplicitAutograd",)
            for key in keys:
                library.impl(name, kernel, key)
        _libraries["provided"] = library
        extension = importlib.import_module("torchvision").extension
        has_none = extension._has_ops
        _rebind({id(has_none): (has_none, _has_ops)})


def _has_ops() -> bool:
    return True


def _require_installed() -> None:
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        raise ImportError("torchvision is not installed: pip install torchvision")


def _import_torchvision() -> ModuleType:
    _require_installed()
    try:
        torchvision = importlib.import_module("torchvision")
        if torchvision.extension._has_ops():
            return torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    raise ImportError(
        f"torchvision's compiled library does not load beside torch {torch.__version__}: install the torchvision made "
        "for it, or call fastvision.interop.torchvision.provide() first"
    )


_BUILDERS: dict[str, Callable[..., torch.nn.Module]] = {
    "fasterrcnn_resnet50_fpn": detection.fasterrcnn_resnet50_fpn,
    "maskrcnn_resnet50_fpn": detection.maskrcnn_resnet50_fpn,
    "resnet18": classification.resnet18,
    "resnet34": classification.resnet34,
    "resnet50": classification.resnet50,
    "resnet101": classification.resnet101,
    "resnet152": classification.resnet152,
    "resnext50_32x4d": classification.resnext50_32x4d,
    "resnext101_32x8d": classification.resnext101_32x8d,
}

# Module names before torchvision 0.13, which its public checkpoints of detectors have.
_OLD_NAMES = {
    "rpn.head.conv.": "rpn.head.conv.0.0.",
    **{
        f"backbone.fpn.{kind}_blocks.{i}.": f"backbone.fpn.{kind}_blocks.{i}.0."
        for kind in ("inner", "layer")
        for i in range(4)
    },
    **{f"roi_heads.mask_head.mask_fcn{i + 1}.": f"roi_heads.mask_head.{i}.0." for i in range(4)},
}


def convert_state_dict(name: str, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a torchvision model, such as its public checkpoints hold, for the model of that name in
    ``fastvision.models``.

    Args:
        name: torchvision's name of the model, for example ``"maskrcnn_resnet50_fpn"``.
        state_dict: Of the model, in the names of any torchvision version. Not changed.

    Returns:
        A new dictionary with the same tensors, that ``load_state_dict(..., strict=True)`` takes for the same number of
        classes.

    Raises:
        ValueError: A name that fastvision has no model for, or entries that are missing or do not belong to it.
    """
    if name not in _BUILDERS:
        raise ValueError(f"convert_state_dict: name: expected one of {', '.join(_BUILDERS)}, got {name!r}")
    with torch.device("meta"):
        expected = _BUILDERS[name]().state_dict().keys()
    converted = {}
    for key, value in state_dict.items():
        module, _, entry = key.rpartition(".")
        new_key = _OLD_NAMES.get(f"{module}.", f"{module}.") + entry
        # Frozen batch normalisation counts no batches.
        if new_key in expected or entry != "num_batches_tracked":
            converted[new_key] = value
    missing, foreign = sorted(expected - converted.keys()), sorted(converted.keys() - expected)
    if missing or foreign:
        text = "; ".join(
            f"{len(keys)} {what}, such as {keys[0]}"
            for keys, what in ((missing, "missing"), (foreign, "foreign"))
            if keys
        )
        raise ValueError(f"convert_state_dict: state_dict: expected the entries of {name}, got {text}")
    return converted
