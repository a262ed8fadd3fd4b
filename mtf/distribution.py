"""The name of mtf's distribution, and the command that installs mtf with one of its extras."""

from __future__ import annotations

from typing import Any, Literal

DISTRIBUTION = "mtf-gitops"  # on PyPI, `mtf` is an unrelated project; the import name stays mtf

Extra = Literal["train", "hydra"]


def pip_install(extra: Extra, *, python: str = "") -> str:
    """Return the shell command that installs this same mtf with an extra.

    The command names the clone or URL that mtf was installed from, or its version if that was a
    package index. ``python`` is the interpreter to install for; by default the shell's pip decides.
    """
    pip = f"{python} -m pip" if python else "pip"
    return f"{pip} install {_source(extra)}"


def _source(extra: Extra) -> str:
    import importlib.metadata  # these take 18 ms, which only this message is worth
    import json
    from urllib.parse import unquote, urlsplit

    requirement = f"{DISTRIBUTION}[{extra}]"
    try:
        installed = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:  # mtf runs from a folder on sys.path
        return f"'{requirement}'"
    # the format of PEP 610, packaging.python.org/specifications/direct-url
    text = installed.read_text("direct_url.json")
    if text is None:
        return f"'{requirement}=={installed.version}'"
    origin: dict[str, Any] = json.loads(text)
    url = origin["url"]
    if "dir_info" in origin:
        editable = "--editable " if origin["dir_info"].get("editable") else ""
        return f"{editable}'{unquote(urlsplit(url).path)}[{extra}]'"
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"'{requirement} @ {vcs['vcs']}+{url}@{vcs['commit_id']}'"
    return f"'{requirement} @ {url}'"
