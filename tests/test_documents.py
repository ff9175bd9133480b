"""The Python examples of the documents run as they are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCKS = [
    (path, number, block)
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]


@pytest.mark.parametrize(
    ("path", "block"), [(p, b) for p, _, b in BLOCKS], ids=[f"{p.relative_to(ROOT)}-{n}" for p, n, _ in BLOCKS]
)
def test_example_runs(path, block):
    exec(compile(block, str(path), "exec"), {})


def test_links_between_documents_lead_somewhere():
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path}: {target}"
