"""The daily loop in repositories of other kinds: sha256, detached HEAD, odd paths, submodules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.lab import QUICK, runs
from tests.cli.mtf import mtf, mtf_json
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from pathlib import Path

SPEC = QUICK.replace("kind: base", "kind: experiment\nexperiment_name: one")
NETS = "import torch\nclass Net(torch.nn.Linear):\n    def __init__(self, num_classes): super().__init__(64, num_classes)\n    def forward(self, x): return super().forward(x.flatten(1))\n"


def test_a_sha256_repository_in_an_odd_folder_works_through_the_daily_loop(tmp_path: Path) -> None:
    folder = tmp_path / "Übung mit Leerzeichen & $HOME"
    kind = ("--object-format=sha256", "-b", "main")
    folder.mkdir()
    git(folder, "init", "-q", "--bare", *kind, str(folder / "lab.git"))
    git(folder, "init", "-q", *kind, str(folder / "lab"))
    lab = Repo(folder / "lab")
    mtf(lab.path, "init")
    mtf(lab.path, "hooks", "install")
    mtf(folder / "lab.git", "hooks", "install")
    lab.git("remote", "add", "origin", "../lab.git")
    lab.commit({"experiments/first.yaml": SPEC})
    lab.git("push", "-q", "origin", "main")
    assert "1 to submit" in mtf(lab.path, "plan", "--executor", "local").stdout
    mtf(lab.path, "sync", "--wait", "--executor", "local")
    (run,) = mtf_json(lab.path, "status", "--json")
    assert (run["state"], len(run["commit"])) == ("completed", 64)
    lab.git("switch", "-q", "--detach")
    assert "nothing to do, 1 unchanged" in mtf(lab.path, "plan").stdout
    assert mtf(lab.path, "results", "one").stdout.startswith("RUN")
    assert "0 errors" in mtf(lab.path, "doctor").stdout


def test_code_in_a_submodule_trains(tmp_path: Path) -> None:
    inner = make_repo(tmp_path / "inner", {"nets.py": NETS})
    spec = SPEC.replace("{type: mlp, hidden_size: 16, num_layers: 1}", '{type: "third.nets:Net"}')
    files = {
        "mtf.yaml": "executor: local\n",
        "experiments/one.yaml": spec,
        ".gitignore": "/runs/\n",
    }
    lab = make_repo(tmp_path / "lab", files)
    allowed = ("-c", "protocol.file.allow=always")
    lab.git(*allowed, "submodule", "--quiet", "add", str(inner.path), "third")
    lab.commit({})
    plain = tmp_path / "plain"
    git(tmp_path, "clone", "-q", str(lab.path), str(plain))
    told = mtf(plain, "plan", code=1).stderr
    assert "  third: a submodule, and this clone lacks its commit" in told
    assert mtf(plain, "sync", code=1).stderr.count("git submodule update --init") == 1
    assert runs(Repo(plain)) == {}
    mtf(lab.path, "validate")
    mtf(lab.path, "sync", "--wait")
    assert runs(lab)["one"]["state"] == "completed"
