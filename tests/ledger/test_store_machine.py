"""State machine test: several clones read the ledger, pause, die and append to it.

Every acknowledged append stays in the ledger, in one order that all clones see.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mtf.core.vocabulary.ids import RunId
from mtf.git.refs import RefMovedError, RefUpdate
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, Ledger, LedgerStore
from tests.core.planner.worlds import experiment, record
from tests.repos import git, make_remote, make_repo

CLONES = 3
CLONE = st.integers(0, CLONES - 1)


class Writers(RuleBasedStateMachine):
    """Three clones of one remote, each with its own store."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        made = make_repo(self.folder / "0", {"a": "1"})
        self.bare = make_remote(self.folder / "lab.git", made)
        for number in range(1, CLONES):
            git(self.folder, "clone", "-q", str(self.bare), str(number))
        self.stores = [self.open(number) for number in range(CLONES)]
        self.read: list[Ledger] = []
        for store in self.stores:
            store.fetch("main")
            self.read.append(store.read())
        self.acknowledged: dict[RunId, int] = {}  # run -> its newest epoch
        self.tips = ["", ""]
        self.writes = 0

    def change(self, run: RunId, epoch: int) -> Change:
        """Return a change unlike any other: git gives equal commits of one second the same id."""
        self.writes += 1
        new = record(experiment(run.split("/")[0]), run)
        return Change(runs=(replace(new, epoch=epoch, reason=f"write {self.writes}"),))

    def open(self, number: int) -> LedgerStore:
        return LedgerStore(GitRepo(self.folder / str(number)), "origin")

    @rule(clone=CLONE)
    def looks(self, clone: int) -> None:
        self.stores[clone].fetch("main")
        self.read[clone] = self.stores[clone].read()

    @rule(clone=CLONE, run=st.integers(0, 2))
    def writes_what_it_has_decided(self, clone: int, run: int) -> None:
        """Append to the ledger as it was read, however long ago; a late writer must be refused."""
        before = self.read[clone]
        name = RunId(f"e{run}/20260101T110000Z/cccccccc")
        epoch = (before.runs[name].epoch or 0) + 1 if name in before.runs else 1
        newest = git(self.bare, "rev-parse", "-q", "--verify", "mtf/ledger", check=False)
        try:
            change = self.change(name, epoch)
            self.read[clone] = self.stores[clone].append(before, change, "m")
        except RefMovedError:
            assert (before.tip or "") != newest, "only a late writer is refused"
        else:
            assert (before.tip or "") == newest, "a late writer must be refused"
            self.acknowledged[name] = epoch

    @rule(clone=CLONE, run=st.integers(0, 2))
    def dies_after_its_push(self, clone: int, run: int) -> None:
        """Leave the remote ahead of this clone, like a writer killed after its push."""
        self.looks(clone)
        repo, ledger = GitRepo(self.folder / str(clone)), self.read[clone]
        scratch = LedgerStore(repo, "origin", publish=False)
        name = RunId(f"e{run}/20260101T110000Z/cccccccc")
        epoch = (ledger.runs[name].epoch or 0) + 1 if name in ledger.runs else 1
        new = scratch.append(ledger, self.change(name, epoch), "m").tip
        assert new is not None
        repo.push("origin", [RefUpdate("refs/heads/mtf/ledger", new, ledger.tip)])
        back = ["update-ref", "refs/heads/mtf/ledger", ledger.tip] if ledger.tip else [
            "update-ref", "-d", "refs/heads/mtf/ledger"]  # fmt: skip
        git(self.folder / str(clone), *back)
        self.acknowledged[name] = epoch
        self.stores[clone] = self.open(clone)
        self.looks(clone)

    @rule(clone=CLONE)
    def is_started_anew(self, clone: int) -> None:
        self.stores[clone] = self.open(clone)
        self.looks(clone)

    @invariant()
    def the_remote_only_ever_moves_on(self) -> None:
        if not hasattr(self, "bare"):
            return
        tip = git(self.bare, "rev-parse", "-q", "--verify", "mtf/ledger", check=False)
        self.tips = [self.tips[1], tip]
        if self.tips[0]:
            git(self.bare, "merge-base", "--is-ancestor", self.tips[0], tip)

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        seen = set()
        for clone in range(CLONES):
            self.looks(clone)
            seen.add(self.read[clone].tip)
            found = {run: r.epoch for run, r in self.read[clone].runs.items()}
            assert found == self.acknowledged, (
                "the ledger holds every acknowledged append and nothing else"
            )
        assert len(seen) == 1
        shutil.rmtree(self.folder)


TestWriters = Writers.TestCase
TestWriters.settings = settings(
    max_examples=5, stateful_step_count=10, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
