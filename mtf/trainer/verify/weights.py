"""``python -m mtf.trainer.verify.weights CHECKPOINT SHA256``: print digests of a model's weights.

A digest is of the values: the same weights have the same one in whatever file they are.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError
from mtf.trainer.compute.digests import leaf_digests
from mtf.trainer.resume.checkpoint_manager import read_verified, weights_in

if TYPE_CHECKING:
    from collections.abc import Mapping


def weight_digests(weights: Mapping[str, Any]) -> dict[str, str]:
    """Return the digest of each leaf of a ``state_dict``, by its name, in the order of the names.

    It covers dtype, shape and bits.
    """
    found = {".".join(map(str, path)): digest for path, digest in leaf_digests(dict(weights))}
    return dict(sorted(found.items()))


def sha256_of(digests: Mapping[str, str]) -> str:
    """Return one digest over those of all weights."""
    text = json_text.dumps(dict(sorted(digests.items())), separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def main(argv: list[str]) -> int:
    """Print the digests as one line of JSON; return the exit code."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m mtf.trainer.verify.weights CHECKPOINT SHA256\n")
        return EXIT_USAGE
    path = Path(argv[0])
    try:
        tensors = weight_digests(weights_in(read_verified(path, argv[1]), path))
    except (MtfError, OSError) as e:
        sys.stderr.write(f"{e}\n")
        return EXIT_ERROR
    sys.stdout.write(f"{json_text.dumps({'sha256': sha256_of(tensors), 'tensors': tensors})}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
