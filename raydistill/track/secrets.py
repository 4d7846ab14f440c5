"""A tracking URI may hold a password: what is shown, logged or stored of it comes from here."""

from __future__ import annotations

import re
from urllib.parse import unquote

from raydistill.config.load import dump_run
from raydistill.config.run import Job

_CREDENTIALS = re.compile(r"(?<=://)(?!/)(.*)(?=@)")
"""From the authority's start to the last `@`: too much rather than too little where a password holds an unescaped `/` or `@`."""
_QUERY_SECRET = re.compile(r"(?<=[?&])([^=&#]*(?:pass|pwd|token|secret|key)[^=&#]*)=([^&#]+)", re.IGNORECASE)


def masked_uri(uri: str) -> str:
    """`uri` with `***` for its password, for a user name that stands alone (it may be a token) and for secrets in its query."""
    shown = _CREDENTIALS.sub(lambda found: f"{user}:***" if (user := _user(found[1])) else "***", uri)
    return _QUERY_SECRET.sub(r"\1=***", shown)


def masked_text(text: str, uri: str) -> str:
    """`text`, such as an exception's, on one line and without the secrets of `uri`, escaped or not."""
    hidden = [credentials.removeprefix(f"{_user(credentials)}:") for credentials in _CREDENTIALS.findall(uri)]
    hidden += [value for _, value in _QUERY_SECRET.findall(uri)]
    shown = " ".join(text.split()).replace(uri, masked_uri(uri))
    for secret in hidden:
        shown = shown.replace(secret, "***").replace(unquote(secret), "***")
    return shown


def public_yaml(run: Job) -> str:
    """The resolved config as YAML, fit to be shown to others."""
    uri = run.track.uri and masked_uri(run.track.uri)
    return dump_run(run.model_copy(update={"track": run.track.model_copy(update={"uri": uri})}))


def _user(credentials: str) -> str:
    user, colon, _ = credentials.partition(":")
    return user if colon else ""
