"""The lease of a cluster: who holds it, and when another controller may take it."""

from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mtf.commands.controller.lease import LEASE_S, Lease, LeaseHeldError, holders
from mtf.git.repo import GitRepo
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
BEFORE_THE_END = timedelta(seconds=LEASE_S - 1)
END = timedelta(seconds=LEASE_S)


class Controllers:
    """Two controllers of one repository, each on a host of its own: only time can end a lease."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.repo = GitRepo(make_repo(folder, {"a": "1"}).path)
        self._monkeypatch = monkeypatch
        self.leases = {host: Lease(self.repo, None, "big") for host in ("one", "two")}

    def hold(self, host: str, now: datetime) -> bool:
        self._monkeypatch.setattr(socket, "gethostname", lambda: host)
        return self.leases[host].hold(now)

    def release(self, host: str) -> None:
        self._monkeypatch.setattr(socket, "gethostname", lambda: host)
        self.leases[host].release()


@pytest.fixture
def controllers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controllers:
    return Controllers(tmp_path, monkeypatch)


def test_a_lease_is_held_until_it_ends_and_not_longer(controllers: Controllers) -> None:
    assert controllers.hold("one", NOW)
    with pytest.raises(LeaseHeldError, match="@one:"):
        controllers.hold("two", NOW + BEFORE_THE_END)
    assert controllers.hold("two", NOW + END)
    with pytest.raises(LeaseHeldError, match="@two:"):  # the sleeper finds its lease taken
        controllers.hold("one", NOW + END)


def test_a_controller_that_goes_on_keeps_its_lease(controllers: Controllers) -> None:
    now = NOW
    assert controllers.hold("one", now)
    for _ in range(10):
        now += timedelta(seconds=LEASE_S / 2)
        assert not controllers.hold("one", now)  # it had it
        with pytest.raises(LeaseHeldError):
            controllers.hold("two", now + BEFORE_THE_END)


def test_a_lease_is_renewed_only_when_a_third_of_it_is_over(controllers: Controllers) -> None:
    controllers.hold("one", NOW)
    first = holders(controllers.repo, None)["big"]
    controllers.hold("one", NOW + timedelta(seconds=LEASE_S / 3 - 1))
    assert holders(controllers.repo, None)["big"] == first
    controllers.hold("one", NOW + timedelta(seconds=LEASE_S / 3 + 1))
    assert holders(controllers.repo, None)["big"].until > first.until


def test_a_lease_that_was_given_back_is_free_at_once(controllers: Controllers) -> None:
    controllers.hold("one", NOW)
    controllers.release("one")
    assert controllers.hold("two", NOW)
