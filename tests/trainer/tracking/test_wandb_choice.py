"""Whether W&B is used where the configuration leaves it open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.trainer.tracking import wandb_mirror

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("env", "use"),
    [
        ({}, False),
        ({"WANDB_API_KEY": "a" * 40}, True),
        ({"WANDB_MODE": "offline"}, True),
        ({"WANDB_MODE": "online"}, False),  # without a key, wandb would ask for one
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "a" * 40}, False),
        ({"NETRC": "machine api.wandb.ai login user password 1"}, True),
    ],
)
def test_wandb_is_configured_by_a_key_or_by_its_offline_mode(
    env: dict[str, str], use: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    if "NETRC" in env:
        (tmp_path / "keys").write_text(f"{env['NETRC']}\n")
        monkeypatch.setenv("NETRC", str(tmp_path / "keys"))
    found, reason = wandb_mirror.is_configured()
    assert (found, bool(reason)) == (use, True)
