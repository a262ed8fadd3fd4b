"""Real users of this machine for tests that run as root: made for a test, and removed after it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

GROUP = "mtf-test-lab"
# In a mount namespace of its own, a folder that only root may look into is replaced by one with the
# same content that everybody may look into.
_OPEN = r"""
closed=$1; shift
hold=$(mktemp -d)
mount --bind "$closed" "$hold" && mount -t tmpfs -o mode=755 none "$closed" || exit 99
for entry in "$hold"/* "$hold"/.[!.]*; do
    name=$closed/${entry##*/}
    if [ -L "$entry" ]; then cp -P "$entry" "$name"
    elif [ -d "$entry" ]; then mkdir "$name" && mount --bind "$entry" "$name"
    elif [ -f "$entry" ]; then : > "$name" && mount --bind "$entry" "$name"
    fi
done
exec "$@"
"""


def reaching(program: str) -> list[str]:
    """Return the words before a command in which every user can start a program; often none."""
    if os.getuid() != 0:
        return []
    closed = [p for p in Path(program).resolve().parents if not p.stat().st_mode & 0o001]
    if not closed:
        return []
    return ["unshare", "--mount", "sh", "-c", _OPEN, "open", str(closed[-1])]


@dataclass(frozen=True)
class User:
    """A user, with an umask."""

    name: str
    home: Path
    umask: str = "002"

    def run(self, folder: Path, *command: str, code: int | None = 0) -> str:
        """Run a command as this user; return what it prints, and check its exit code."""
        env = {
            "HOME": str(self.home),
            "USER": self.name,
            "LOGNAME": self.name,
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "GIT_CONFIG_NOSYSTEM": "1",
            "NO_COLOR": "1",
            **{name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ},
        }
        done = subprocess.run(
            [
                *reaching(sys.executable),
                *("setpriv", f"--reuid={self.name}", f"--regid={GROUP}", "--init-groups"),
                *("sh", "-c", f'umask {self.umask}; cd "$1" && shift && exec "$@"', "sh"),
                str(folder),
                *command,
            ],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        printed = done.stdout + done.stderr
        assert "Traceback" not in printed, printed
        assert "this is a bug" not in printed, printed
        assert code is None or done.returncode == code, printed
        return printed

    def mtf(self, folder: Path, *args: str, code: int | None = 0) -> str:
        """Run `mtf` in a folder as this user."""
        return self.run(folder, sys.executable, "-m", "mtf.cli", *args, code=code)


@contextmanager
def two_users(folder: Path) -> Iterator[tuple[User, User]]:
    """Return a context with two users of one group, whose homes are in a folder."""
    if os.getuid() != 0:
        pytest.skip("only root can make other users")
    names = ("mtf-test-ann", "mtf-test-ben")
    subprocess.run(["groupadd", "--force", GROUP], check=True)
    try:
        for name in names:
            home = folder / name
            _remove(name)
            add = ["useradd", "--no-create-home", "--home-dir", str(home), "--gid", GROUP, name]
            subprocess.run(add, check=True, capture_output=True)
            home.mkdir()
            os.chown(home, pwd.getpwnam(name).pw_uid, -1)
            text = f"[user]\n name = {name}\n email = {name}@lab\n[safe]\n directory = *\n"
            (home / ".gitconfig").write_text(text)
        ann, ben = (User(name, folder / name) for name in names)
        yield ann, ben
    finally:
        for name in names:
            subprocess.run(["pkill", "-KILL", "-U", name], check=False)
            _remove(name)
        subprocess.run(["groupdel", GROUP], check=False)


def _remove(name: str) -> None:
    subprocess.run(["userdel", "--force", name], check=False, capture_output=True)
