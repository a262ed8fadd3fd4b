"""Posts a plan to a pull request, or updates the one that is there: GitHub and GitLab over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PAGE = 100  # comments; both forges give no more at once
_REFUSED = (401, 403, 404)  # what a token that may only read is told


@dataclass(frozen=True)
class Forge:
    """Where the comments of one pull request are."""

    comments: str  # the URL that lists them, and takes new ones
    one: str  # the URL that each stands below
    update: str  # the HTTP method that changes one
    headers: Mapping[str, str]


def forge_of(environment: Mapping[str, str], number: str | None) -> Forge:
    """Return the forge whose CI this is, by the variables that it sets.

    Raises:
        MtfError: it is none, or there is no pull request or token.
    """
    try:
        if "GITHUB_REPOSITORY" in environment:
            return _github(environment, number)
        return _gitlab(environment, number)
    except KeyError as e:
        raise MtfError(
            f"{e.args[0]} is not set. mtf comment runs in the CI of GitHub or GitLab"
        ) from None


def _github(told: Mapping[str, str], number: str | None) -> Forge:
    if number is None:
        raise MtfError("on GitHub, name the pull request: mtf comment --number N FILE")
    issues = f"{told['GITHUB_API_URL']}/repos/{told['GITHUB_REPOSITORY']}/issues"
    headers = {
        "Authorization": f"Bearer {told['GITHUB_TOKEN']}",
        "Accept": "application/vnd.github+json",
    }
    return Forge(f"{issues}/{number}/comments", f"{issues}/comments", "PATCH", headers)


def _gitlab(told: Mapping[str, str], number: str | None) -> Forge:
    project = f"{told['CI_API_V4_URL']}/projects/{told['CI_PROJECT_ID']}"
    notes = f"{project}/merge_requests/{number or told['CI_MERGE_REQUEST_IID']}/notes"
    return Forge(notes, notes, "PUT", {"PRIVATE-TOKEN": told["MTF_COMMENT_TOKEN"]})


def post(forge: Forge, text: str) -> str | None:
    """Make ``text`` the one comment that begins with its own first line; return its URL or id.

    None where the token may not write, as that of a pull request from a fork.

    Raises:
        MtfError: the forge does not answer, or not as expected.
    """
    marker = text.splitlines()[0]
    try:
        mine = next((c["id"] for c in _comments(forge) if _is_mine(c, marker)), None)
        if mine is None:
            made = _ask(forge, "POST", forge.comments, {"body": text})
        else:
            made = _ask(forge, forge.update, f"{forge.one}/{mine}", {"body": text})
    except urllib.error.HTTPError as e:
        if e.code in _REFUSED:
            return None
        raise MtfError(f"{e.url}: {e.code} {e.reason}") from e
    except (urllib.error.URLError, ValueError, KeyError) as e:
        raise MtfError(f"{forge.comments}: {e}") from e
    return str(made.get("html_url", made["id"]))


def _is_mine(comment: Mapping[str, Any], marker: str) -> bool:
    """Return whether a bot wrote it (GitHub says so) and it begins with the marker."""
    is_bot = comment.get("user", {}).get("type", "Bot") == "Bot"
    return is_bot and str(comment["body"]).startswith(marker)


def _comments(forge: Forge) -> Iterator[dict[str, Any]]:
    page, found = 1, [dict[str, Any]()] * _PAGE
    while len(found) == _PAGE:
        found = _ask(forge, "GET", f"{forge.comments}?per_page={_PAGE}&page={page}", None)
        yield from found
        page += 1


def _ask(forge: Forge, method: str, url: str, body: dict[str, str] | None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {**forge.headers, "Content-Type": "application/json", "User-Agent": "mtf"}
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # the CI's own URL
        return json.load(answer)
