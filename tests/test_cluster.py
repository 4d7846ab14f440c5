"""A cluster that a run starts is closed to others."""

import socket
import subprocess
import sys

import pytest

from tests.e2e.conftest import ENVIRONMENT

OWN = """
from raydistill.cluster import connect
connect()
import ray
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""
JOIN = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False); print('joined')"


def test_nobody_joins_the_cluster_of_a_run_without_its_token() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", OWN], env=ENVIRONMENT, **pipes) as owner:  # type: ignore[call-overload]
        address = owner.stdout.readline().strip()
        assert address
        without_token = ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}
        stranger = subprocess.run([sys.executable, "-c", JOIN, address], env=without_token, capture_output=True, text=True, check=False)
        owner.communicate("\n", timeout=60)
    assert stranger.returncode != 0
    assert "joined" not in stranger.stdout
    assert "ConnectionError" in stranger.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:port"])
def test_an_address_where_nobody_answers(address: str) -> None:
    joining = [sys.executable, "-c", "from raydistill.cluster import connect; connect()"]
    ended = subprocess.run(joining, env=ENVIRONMENT | {"RAY_ADDRESS": address}, capture_output=True, text=True, timeout=60, check=False)
    assert f"InputError: RAY_ADDRESS={address}: no Ray cluster answers there" in ended.stderr


@pytest.mark.parametrize(("host", "written"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "ray://127.0.0.1"), ("::1", "[::1]")])
def test_an_address_where_somebody_listens(host: str, written: str) -> None:
    from raydistill.cluster import _knock

    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        _knock(f"{written}:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", [None, "ray://somewhere"])
def test_room_is_unknown_before_a_cluster_elsewhere_is_joined(address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from raydistill.cluster import capacity

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert (capacity() is None) == (address is not None)
