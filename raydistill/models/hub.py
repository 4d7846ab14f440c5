"""Models from the hub: fetched if need be, and why one cannot be had, in one line with the cure and never with a token."""

from __future__ import annotations

import re
from pathlib import Path

from raydistill.errors import InputError, reason

_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
"""What is fetched from the hub: no pickles and no code."""
_CREDENTIALS = re.compile(r"(?<=://)[^/\s]*@")


def snapshot(field: str, name: str) -> Path:
    """The folder of a model of the hub, in the hub's own cache. Raises InputError naming `field` where it cannot be had."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # offline, no such repository, no permission: classes of several libraries
        raise InputError(f"{field}: no folder {name} here, and {_why(name, error)}") from None  # its cause may show request headers


def _why(name: str, error: BaseException) -> str:
    from huggingface_hub import constants, get_token
    from huggingface_hub.errors import DisabledRepoError, GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    hub = _without_secrets(constants.ENDPOINT)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the client then looked for a copy here
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"the hub gives it only to those who accepted its licence: accept it at {hub}/{name}, then {_log_in()}"
    if isinstance(error, RepositoryNotFoundError) or (status == 401 and not get_token()):
        return f"the hub has no {name}, or hides it: check the spelling at {hub}/{name}; if it is private, {_log_in()}"
    if isinstance(error, DisabledRepoError):
        return f"the hub has disabled it, see {hub}/{name}; choose another model"
    if status in (401, 403):
        return f"the hub refuses it ({status}): {_log_in()}"
    if constants.HF_HUB_OFFLINE:
        return f"the hub may not be asked, as HF_HUB_OFFLINE is set: unset it, or `hf download {name}` where there is a network"
    if isinstance(error, LocalEntryNotFoundError):
        return f"the hub cannot be reached at {hub}: check the network and HF_ENDPOINT, or give a local folder"
    return f"the hub does not give it: {_without_secrets(reason(error))}"


def _log_in() -> str:
    from huggingface_hub import get_token

    if get_token():
        return "see that the account of the token in use (HF_TOKEN, or that of `hf auth login`) has access and that the token may read it"
    return "log in by `hf auth login` or set HF_TOKEN"


def _without_secrets(text: str) -> str:
    from huggingface_hub import get_token

    shown = _CREDENTIALS.sub("***@", text)
    token = get_token()
    return shown.replace(token, "***") if token else shown
