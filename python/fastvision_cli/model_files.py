"""Detectors and their weights: .safetensors with a note of what they belong to, or a state_dict saved by torch."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastvision.models import detection
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from .command_line import MOST_CLASSES
from .errors import DATA, ENVIRONMENT, USAGE, CommandError, one_line, reason

_NOTE = "fastvision"  # the only key of the files' metadata: with several their order, and so the bytes, would vary
_SHOWN = 5


def build_model(name: str, num_classes: int) -> nn.Module:
    """A detector by the name of its builder in fastvision.models.detection; ``num_classes`` counts the background."""
    if name not in model_names():
        raise CommandError(USAGE, f"unknown model {name!r}", f"the models are {', '.join(model_names())}")
    model: nn.Module = getattr(detection, name)(num_classes)
    return model


def model_names() -> list[str]:
    return [name for name in detection.__all__ if name.islower()]


def use_device(name: str) -> torch.device:
    """The device, or an error that says why it cannot be used."""
    import fastvision

    found = f"torch.__version__ is {torch.__version__}, torch.version.cuda is {torch.version.cuda}"
    if name == "cuda" and not torch.cuda.is_available():
        remedy = (
            "install a build of torch with CUDA" if torch.version.cuda is None else "check the driver with nvidia-smi"
        )
        raise CommandError(
            ENVIRONMENT, f"--device cuda: torch finds no CUDA device ({found})", f"{remedy}, or use --device cpu"
        )
    if name == "cuda" and not fastvision.has_cuda():
        raise CommandError(
            ENVIRONMENT,
            f"--device cuda: fastvision was built without CUDA kernels ({found})",
            "install it from source on a machine that has nvcc, or use --device cpu",
        )
    return torch.device(name)


def weights_to_bytes(model: nn.Module, note: dict[str, Any]) -> bytes:
    """A safetensors file. ``note`` must hold ``model`` and ``num_classes``; ``class_names`` starts with label 1."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    return save(tensors, metadata={_NOTE: json.dumps(note, sort_keys=True)})


def load_model(path: Path, name: str | None, num_classes: int | None) -> tuple[nn.Module, list[str]]:
    """The model of a file of weights, in evaluation mode, and the names of its classes from label 1.

    Args:
        path: Of the weights.
        name, num_classes: Of the model, where the file does not say or is to be overruled.
    """
    tensors, note = _read(path)
    if (name is None and "model" not in note) or (num_classes is None and "num_classes" not in note):
        raise CommandError(
            USAGE,
            f"{path} does not say which model it belongs to",
            "give --model and --num-classes (with the background)",
        )
    name = name or _noted(path, note, "model", lambda value: value in model_names())
    num_classes = num_classes or _noted(path, note, "num_classes", lambda n: type(n) is int and 2 <= n <= MOST_CLASSES)
    names = _noted(path, note, "class_names", lambda value: isinstance(value, list)) if "class_names" in note else []
    model = build_model(name, num_classes)
    _check_fit(path, model, tensors)
    model.load_state_dict(tensors)
    return model.eval(), [str(n) for n in names]


def _noted(path: Path, note: dict[str, Any], key: str, is_valid: Callable[[Any], bool]) -> Any:
    if not is_valid(note[key]):
        raise CommandError(DATA, f"{path}: its metadata have no valid {key}: {str(note[key])[:80]!r}")
    return note[key]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if path.is_dir():
        raise CommandError(USAGE, f"--weights: expected a file, got the directory {path}")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                note = json.loads((file.metadata() or {}).get(_NOTE, "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return tensors, note if isinstance(note, dict) else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old or odd files; what matters is an error
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        return _state_dict(path, loaded), {}
    except pickle.UnpicklingError as error:
        raise CommandError(
            DATA,
            f"{path}: refused by torch.load(weights_only=True): it holds more than tensors, or is no file of weights",
            "save model.state_dict() alone, or use safetensors; fastvision never runs code from a file of weights",
        ) from error
    except SafetensorError as error:
        raise CommandError(DATA, f"{path}: broken or truncated safetensors file: {one_line(error)}") from error
    except OSError as error:
        raise CommandError(DATA, f"--weights: cannot read {path}: {reason(error)}") from error
    except (RuntimeError, ValueError, EOFError, KeyError) as error:
        raise CommandError(DATA, f"{path}: broken or truncated file of weights: {one_line(error)}") from error


def _state_dict(path: Path, loaded: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint, which may keep them beside other things."""
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CommandError(DATA, f"{path}: expected a state_dict, names to tensors", "save model.state_dict()")
    return loaded


def _check_fit(path: Path, model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The error names up to five tensors that do not fit, with both shapes."""

    def shape(tensor: Tensor | None) -> str:
        return "missing" if tensor is None else str(tuple(tensor.shape))

    wanted = model.state_dict()
    misfits = [
        f"{name}: {shape(tensors.get(name))} in the file, {shape(wanted.get(name))} in the model"
        for name in [*wanted, *(name for name in tensors if name not in wanted)]
        if shape(tensors.get(name)) != shape(wanted.get(name))
    ]
    if misfits:
        more = f"; and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise CommandError(
            DATA,
            f"{path} does not fit the model: {'; '.join(misfits[:_SHOWN])}{more}",
            "give the number of classes of the weights, with the background, by --num-classes, or the model by --model",
        )
