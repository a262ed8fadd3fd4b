"""Posts a plan as a comment on a pull request of GitHub or GitLab, or updates that comment."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PAGE = 100  # comments; the most that either forge returns at once
_REFUSED = (401, 403, 404)  # the answers to a token that may only read
_GITHUB = ("GITHUB_REPOSITORY", "GITHUB_API_URL", "GITHUB_TOKEN")
_GITLAB = ("CI_API_V4_URL", "CI_PROJECT_ID", "CI_MERGE_REQUEST_IID", "MTF_COMMENT_TOKEN")
_BY_HAND = """\
this is not a CI job of GitHub or GitLab. To try mtf comment by hand, set what such a job has:
  GitHub: GITHUB_REPOSITORY=owner/name GITHUB_API_URL=https://api.github.com GITHUB_TOKEN=...
          mtf comment --number N FILE
  GitLab: CI_API_V4_URL=https://gitlab.com/api/v4 CI_PROJECT_ID=... MTF_COMMENT_TOKEN=...
          mtf comment --number N FILE"""


@dataclass(frozen=True)
class Forge:
    """The URLs of the comments on one pull request."""

    comments: str  # lists them, and takes new ones
    parent: str  # each comment's own URL is below it
    update: str  # the HTTP method that changes a comment
    headers: Mapping[str, str]


def forge_of(environment: Mapping[str, str], number: str | None) -> Forge:
    """Return the forge whose CI this process runs in, from the CI's environment variables.

    Raises:
        MtfError: this is not a CI job, or there is no pull request or token.
    """
    if "GITHUB_REPOSITORY" in environment:
        _require("GitHub", _GITHUB, environment)
        return _github(environment, number)
    if any(name in environment for name in _GITLAB):
        given = {"CI_MERGE_REQUEST_IID": number} if number else {}
        _require("GitLab", _GITLAB, {**environment, **given})
        return _gitlab(environment, number)
    raise MtfError(_BY_HAND)


def _require(forge: str, names: Iterable[str], environment: Mapping[str, str]) -> None:
    """Refuse to go on without the variables of a forge, naming each that is missing."""
    missing = [name for name in names if not environment.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MtfError(
            f"{', '.join(missing)} {verb} not set. On {forge}, mtf comment needs {', '.join(names)}"
        )


def _github(environment: Mapping[str, str], number: str | None) -> Forge:
    if number is None:
        raise MtfError("on GitHub, name the pull request: mtf comment --number N FILE")
    issues = f"{environment['GITHUB_API_URL']}/repos/{environment['GITHUB_REPOSITORY']}/issues"
    headers = {
        "Authorization": f"Bearer {environment['GITHUB_TOKEN']}",
        "Accept": "application/vnd.github+json",
    }
    return Forge(f"{issues}/{number}/comments", f"{issues}/comments", "PATCH", headers)


def _gitlab(environment: Mapping[str, str], number: str | None) -> Forge:
    project = f"{environment['CI_API_V4_URL']}/projects/{environment['CI_PROJECT_ID']}"
    notes = f"{project}/merge_requests/{number or environment['CI_MERGE_REQUEST_IID']}/notes"
    return Forge(notes, notes, "PUT", {"PRIVATE-TOKEN": environment["MTF_COMMENT_TOKEN"]})


def post(forge: Forge, text: str) -> str | None:
    """Post ``text``, or replace the comment with the same first line; return its URL or id.

    Return None if the token may not write, as with a pull request from a fork.

    Raises:
        MtfError: the forge does not answer, or its answer is not as expected.
    """
    marker = text.splitlines()[0]
    try:
        existing = next((c["id"] for c in _comments(forge) if _is_mine(c, marker)), None)
        if existing is None:
            made = _ask(forge, "POST", forge.comments, {"body": text})
        else:
            made = _ask(forge, forge.update, f"{forge.parent}/{existing}", {"body": text})
    except urllib.error.HTTPError as e:
        if e.code in _REFUSED:
            return None
        raise MtfError(f"{e.url}: {e.code} {e.reason}") from e
    except (urllib.error.URLError, ValueError, KeyError) as e:
        raise MtfError(f"{forge.comments}: {e}") from e
    return str(made.get("html_url", made["id"]))


def _is_mine(comment: Mapping[str, Any], marker: str) -> bool:
    """Return True if a bot (GitHub says so) wrote the comment and it begins with the marker."""
    is_bot = comment.get("user", {}).get("type", "Bot") == "Bot"
    return is_bot and str(comment["body"]).startswith(marker)


def _comments(forge: Forge) -> Iterator[dict[str, Any]]:
    page, found = 1, [dict[str, Any]()] * _PAGE
    while len(found) == _PAGE:
        found = _ask(forge, "GET", f"{forge.comments}?per_page={_PAGE}&page={page}", None)
        yield from found
        page += 1


def _ask(forge: Forge, method: str, url: str, body: dict[str, str] | None) -> Any:
    data = None if body is None else json_text.dumps(body).encode()
    headers = {**forge.headers, "Content-Type": "application/json", "User-Agent": "mtf"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # the CI's own URL
        return json.load(answer)
