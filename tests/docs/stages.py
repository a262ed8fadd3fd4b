"""Files and repositories that the blocks of a page expect in their folder before they run."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

EMPTY = "mtf init . && rm experiments/first.yaml"
DEMO = "mtf init --demo . && git add --all && git commit --quiet -m Demo"

SHARED = f"{DEMO} && git init --quiet --bare -b main ../remote.git"
SHARED += " && git remote add origin ../remote.git && git push --quiet -u origin main"

# a branch that changes the dropout of the baseline and one learning rate of the grid over it
BRANCH = f"{DEMO} && git switch --quiet -c faster"
BRANCH += " && sed -i 's/1e-2]/3e-2]/' experiments/digits_search.yaml"
BRANCH += " && sed -i 's/dropout: 0.1/dropout: 0.2/' experiments/digits_baseline.yaml"
BRANCH += " && git commit --quiet -am 'Train faster'"

STAGES: Mapping[str, str] = {
    "docs/ci.md": SHARED,
    "docs/controller.md": SHARED,
    "docs/hooks.md": SHARED,
    "docs/hydra.md": EMPTY,
    "docs/policies.md": DEMO,
    "docs/results.md": EMPTY,
    "docs/review.md": BRANCH,
    "docs/validation.md": EMPTY,
    "docs/verify-resume.md": EMPTY,
    "docs/own-code.md": EMPTY,
    "docs/settings.md": DEMO,
}


def set_up(page: str, folder: Path, env: Mapping[str, str]) -> None:
    """Run the script of a page, if it has one."""
    subprocess.run(
        ["bash", "-ec", STAGES.get(page, "")], cwd=folder, env=env, check=True, capture_output=True
    )
