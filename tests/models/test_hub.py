"""Why a model of the hub cannot be had, told by the hub's own client in a process of its own, from what a server on loopback answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

TOKEN = "hf_averysecrettoken"
_ANSWERS: dict[str, tuple[int, dict[str, str]]] = {
    "acme/gated": (401, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model acme/gated is restricted."}),
    "acme/not-yet": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Awaiting a review."}),
    "acme/typo": (404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}),
    "acme/hidden": (401, {"X-Error-Message": "Invalid username or password."}),
    "acme/old-token": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "acme/forbidden": (403, {"X-Error-Message": "Forbidden"}),
    "acme/disabled": (403, {"X-Error-Message": "Access to this resource is disabled."}),
}
_ASK = """
import json, sys
from raydistill.errors import InputError
from raydistill.models.load import resolve_folder
for name in sys.argv[1:]:
    try:
        print(json.dumps(str(resolve_folder("teacher.model", name))))
    except InputError as error:
        print(json.dumps(str(error)))
"""


class _Hub(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, headers = next((a for name, a in _ANSWERS.items() if self.path.startswith(f"/api/models/{name}/")), (None, {}))
        body: object = {"error": "no"}
        if "acme/licensed" in self.path:  # all may read what it holds, not the files
            status, headers = (403, {"X-Error-Code": "GatedRepo"}) if "/resolve/" in self.path else (200, {})
            whole = {"id": "acme/licensed", "sha": "0" * 40, "siblings": [{"rfilename": "config.json"}]}
            body = [{"type": "file", "path": "config.json", "size": 2, "oid": "1"}] if "/tree/" in self.path else whole
        text = json.dumps(body).encode()
        self.send_response(status or 418)
        for header in {"Content-Type": "application/json", "Content-Length": str(len(text)), **headers}.items():
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(text)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def ask(tmp_path, names: list[str], **settings: str) -> dict[str, str]:
    """The error of each model."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = bare | {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"} | settings
    done = subprocess.run([sys.executable, "-c", _ASK, *names], capture_output=True, text=True, timeout=120, check=True, env=environment)
    told = dict(zip(names, map(json.loads, done.stdout.splitlines()), strict=True))
    for name, text in told.items():
        assert text.startswith(f"teacher.model: no folder {name} here, and the hub ")
        assert "\n" not in text
    assert TOKEN not in done.stdout + done.stderr
    return told


def test_who_is_not_logged_in_is_told_to_log_in(hub, tmp_path) -> None:
    told = ask(tmp_path, ["acme/gated", "acme/typo", "acme/hidden", "acme/disabled", "acme/licensed"], HF_ENDPOINT=hub)
    for name in ("acme/gated", "acme/licensed"):
        assert f"accept it at {hub}/{name}, then log in by `hf auth login` or set HF_TOKEN" in told[name]
    for name in ("acme/typo", "acme/hidden"):
        assert f"has no {name}, or hides it: check the spelling" in told[name]
        assert "if it is private, log in by `hf auth login` or set HF_TOKEN" in told[name]
    assert "disabled it" in told["acme/disabled"]


def test_who_is_logged_in_is_told_to_look_at_the_account(hub, tmp_path) -> None:
    told = ask(tmp_path, ["acme/not-yet", "acme/old-token", "acme/forbidden", "acme/teapot"], HF_ENDPOINT=hub, HF_TOKEN=TOKEN)
    assert f"accept it at {hub}/acme/not-yet, then see that the account of the token in use" in told["acme/not-yet"]
    assert "refuses it (401)" in told["acme/old-token"]
    assert "refuses it (403)" in told["acme/forbidden"]
    assert "418" in told["acme/teapot"]


def test_without_a_hub(tmp_path) -> None:
    nowhere = "http://user:hf_averysecrettoken@127.0.0.1:9"
    (unreachable,) = ask(tmp_path, ["acme/any"], HF_ENDPOINT=nowhere).values()
    assert "cannot be reached at http://***@127.0.0.1:9: check the network and HF_ENDPOINT, or give a local folder" in unreachable
    (offline,) = ask(tmp_path, ["acme/any"], HF_ENDPOINT=nowhere, HF_HUB_OFFLINE="1").values()
    assert "HF_HUB_OFFLINE is set: unset it" in offline
