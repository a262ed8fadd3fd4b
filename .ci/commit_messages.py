"""Check the subjects of commits: `topic: what changed`, at most 72 characters.

`make lint` checks those made after UNCHECKED; the topic is the room or file that changed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

UNCHECKED = "034cdf22370deddaa4a7b643bd2835c5a57be8cc"
LONGEST = 72
SUBJECT = re.compile(r"[\w.][\w., /&*-]*: \S")


def problem(subject: str) -> str | None:
    """Return what is wrong with a subject line, or None."""
    if len(subject) > LONGEST:
        return f"{len(subject)} characters; at most {LONGEST}"
    if not SUBJECT.match(subject):
        return "expected `topic: what changed`, such as `ledger: refuse records of other runs`"
    return None


def git(*args: str) -> subprocess.CompletedProcess[str]:
    """Run git in the folder above this file's."""
    command = ["git", "-C", str(Path(__file__).parents[1]), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def main() -> int:
    """Check the commits after UNCHECKED; a copy without that history has nothing to check."""
    if git("merge-base", "--is-ancestor", UNCHECKED, "HEAD").returncode:
        print(f"commit messages not checked: no history back to {UNCHECKED[:7]} here")
        return 0
    log = git("log", "--no-merges", "--format=%h %s", f"{UNCHECKED}..HEAD").stdout.splitlines()
    found = [(line, problem(line.partition(" ")[2])) for line in log]
    for line, text in found:
        if text:
            print(f"{line}\n    {text}", file=sys.stderr)
    return any(text for _, text in found)


if __name__ == "__main__":
    sys.exit(main())
