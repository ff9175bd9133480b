"""scikit-build-core, plus one thing: torch is a build requirement only where no torch headers are found.

Only torch's headers are needed, so the torch of the environment that pip installs into will do; pip's isolated build
still knows where that is. Run as a program, prints torch's folder: CMakeLists.txt asks it.
"""

import sys
import sysconfig
from pathlib import Path


def find_torch(*extra_folders: str) -> Path | None:
    folders = [*sys.path, sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *extra_folders]
    for folder in folders:
        torch = Path(folder or ".").resolve() / "torch"
        if (torch / "include/torch/csrc/stable/library.h").is_file():
            return torch
    return None


if __name__ == "__main__":
    found = find_torch(*sys.argv[1:])
    if found is None:
        sys.exit("fastvision: no torch headers found; pip install 'torch>=2.11' first")
    print(found)
else:
    from scikit_build_core.build import *  # noqa: F403
    from scikit_build_core.build import __all__ as __all__
    from scikit_build_core.build import get_requires_for_build_editable as _editable_requires
    from scikit_build_core.build import get_requires_for_build_wheel as _wheel_requires

    def _torch_requirement() -> list[str]:
        return [] if find_torch() else ["torch>=2.11"]

    def get_requires_for_build_wheel(config_settings=None):
        return _wheel_requires(config_settings) + _torch_requirement()

    def get_requires_for_build_editable(config_settings=None):
        return _editable_requires(config_settings) + _torch_requirement()
