"""What `--dry-run` says of jobs for GPUs, on a machine with neither GPUs nor the models."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from raydistill.config.distill import Distill
from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job, load_run
from raydistill.config.run import Run
from raydistill.config.sweep import Sweep
from raydistill.config.task import ChoiceTask
from raydistill.dry_run import dry_run, dry_run_distill, dry_run_sweep
from raydistill.errors import InputError
from raydistill.models.shapes import KNOWN
from raydistill.plan import Part, check
from raydistill.scaling.arithmetic import GIB, H100, Memory
from raydistill.scaling.memory import Card, cards, require_fit, run_memory, verdict
from raydistill.scaling.outline import outline_run
from raydistill.tasks.chosen_letter import chosen_letter
from raydistill.track.secrets import public_yaml
from tests.e2e.conftest import ENVIRONMENT

PAPER = Path("configs/paper")
CHOICE = ("mmlupro", "csqa", "supergpqa")
RUNS = (
    *(f"{family}-{task}" for family in ("gemma3", "qwen3") for task in ("bigmath4", "bigmath5", *CHOICE)),
    "qwen3-dolly",
    "qwen3-vicuna",
)
ON_GPUS = ["rollout.gpus=1", "learner.gpus=1", "scorer.gpus=0.3", "students=null"]


@pytest.fixture(autouse=True)
def nothing_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub, an empty cache, a laptop, and a terminal that is wide enough."""
    monkeypatch.setattr("raydistill.scaling.show.capacity", lambda: {"CPU": 2.0, "GPU": 0.0})
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("COLUMNS", "200")


def preset(name: str, *overrides: str) -> Run:
    return load_run(PAPER / f"{name}.yaml", overrides)


@pytest.mark.parametrize("name", RUNS)
def test_a_preset_is_a_run_and_a_sweep(name: str) -> None:
    run = preset(name)
    sweep = load_job(Sweep, PAPER / f"{name}.yaml", ["sweep.eta=[-1, 0, 1]"])
    assert sweep.sweep.etas == (-1, 0, 1)
    assert (run.name, run.learner.dtype, run.learner.gradient_checkpointing) == (name, "bfloat16", True)
    assert run.learner.lora
    assert run.proxy
    assert {run.teacher.model, run.proxy.model} <= set(KNOWN)


@pytest.mark.parametrize("family", ["gemma3", "qwen3"])
def test_presets_of_two_levels_differ_in_name_and_data_alone(family: str) -> None:
    four, five = (preset(f"{family}-bigmath{level}").model_dump() for level in (4, 5))
    assert four.pop("name") != five.pop("name")
    assert [data.pop("data")["train"][-13:] for data in (four["task"], five["task"])] == ["level_4:train", "level_5:train"]
    assert four == five


@pytest.mark.parametrize("family", ["gemma3", "qwen3"])
@pytest.mark.parametrize("task", CHOICE)
def test_presets_of_multiple_choice_differ_from_those_of_maths_in_what_is_asked_alone(family: str, task: str) -> None:
    maths, choice = (preset(f"{family}-{name}") for name in ("bigmath4", task))
    assert isinstance(choice.task, ChoiceTask)
    assert choice.proxy
    assert choice.teacher.prompt_format == choice.proxy.prompt_format
    assert chosen_letter(choice.teacher.prompt_format.replace("X", "B", 1)).letter == "B"  # type: ignore[union-attr]
    for part in ("verifier", "scorer", "learner", "evaluation"):
        assert getattr(choice, part) == getattr(maths, part)
    assert (choice.teacher.model, choice.proxy.model) == (maths.teacher.model, maths.proxy.model)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [name for name in RUNS if not name.endswith("bigmath5")])
def test_a_student_s_preset_is_of_the_paper_s_method_and_of_the_run_s_teacher(name: str) -> None:
    run, path = preset(name), PAPER / f"distill-{name}.yaml"
    job = load_job(Distill, path)
    assert (job.method.method, job.teacher, job.task) == ("on_policy_rkl", run.teacher, run.task)
    seqkd = load_job(Distill, path, ["method={method: seqkd, samples: 25600, steps: 400, batch: 64, lr: 2.0e-5}"])
    assert seqkd.method.completions == job.method.completions


def test_vicuna_is_asked_of_what_dolly_trains() -> None:
    dolly, vicuna = (preset(f"qwen3-{name}").model_dump() for name in ("dolly", "vicuna"))
    own = {"source": "vicuna_bench.jsonl", "question": "turns", "context": None, "gold": None}
    assert vicuna["task"].pop("data") == dolly["task"].pop("data") | {"report": own}
    for part in ("name", "evaluation"):
        assert dolly.pop(part) != vicuna.pop(part)
    assert dolly == vicuna


def test_an_evaluation_s_preset_is_of_the_student_s_task() -> None:
    measured, student = (load_job(kind, PAPER / f"{kind.__name__.lower()}-qwen3-mmlupro.yaml") for kind in (Evaluate, Distill))
    assert (measured.task, measured.model.prompt_format) == (student.task, student.student.prompt_format)
    assert measured.model.model == f"runs/{student.name}/student"


@pytest.mark.parametrize("page", [PAPER / "README.md", Path("docs/scaling.md")])
def test_commands_on_the_pages_are_of_configs_that_load(page: Path) -> None:
    kinds = {"calibrate": Run, "sweep": Sweep, "distill": Distill, "evaluate": Evaluate}
    commands = [shlex.split(line, comments=True) for line in page.read_text().splitlines() if line.startswith(".venv/bin/raydistill ")]
    assert commands
    for _, verb, *arguments in commands:
        config = Path(arguments[arguments.index("--config") + 1])
        load_job(kinds[verb], config, [argument for argument in arguments if "=" in argument and not argument.startswith("--")])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_s_plan_without_models_and_gpus(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dry_run(preset(name), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    graded = preset(name).task.kind == "instructions"
    assert ("│ reward │ rollout │ 1 │ 2 │ 1 │ grades completions │" in said) == graded
    for words in (
        f"From shapes alone (teacher, proxy{', task.reward' if graded else ''} not on this machine): models and data were not looked at.",
        "Not checked: tokenizers",
        "│ learner │ learner │ 4 │ 2 │ 1 │",
        "anchor + current + proxy",
        "of 79.6",
        "in all 8 GPUs, 1 node of 8; where nodes offer the custom resources, which part the kinds: rollout 4 (1 node of 8), learner 4",
        "H100 80GB SXM GPU-hours reserved",
        "- 0.6 GiB of each process for the CUDA context, NCCL and libraries, 2 GiB of an engine for CUDA graphs",
        "none was measured on a GPU",
        "Not here: this machine has 0 of 8 GPUs",
    ):
        assert words in said
    assert "does not fit" not in said
    assert not list(tmp_path.glob("*.yaml"))


@pytest.mark.parametrize("family", ["gemma3", "qwen3"])
@pytest.mark.parametrize("overrides", [[], ["method={method: seqkd}"], ["method={method: kd}"], ["method={method: sampled_rkl}"]])
def test_a_student_s_plan(family: str, overrides: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dry_run_distill(load_job(Distill, PAPER / f"distill-{family}-bigmath4.yaml", overrides), tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "(teacher, student not on this machine)" in said
    assert "│ train │ student │ 4 │ 2 │ 1 │" in said
    assert ("scorer" in said) == (overrides != ["method={method: seqkd}"])
    assert "GPU-hours reserved" in said


def test_a_sweep_s_plan(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep = load_job(Sweep, PAPER / "qwen3-bigmath4.yaml", ["sweep.eta=[-1, 1]"])
    assert dry_run_sweep(sweep, tmp_path)
    assert "2 trials: eta-1, eta+1\neach as this one:" in capsys.readouterr().out
    assert not dry_run_sweep(load_job(Sweep, Path("configs/sweep.yaml")), tmp_path)


@pytest.mark.parametrize(
    ("over", "groups", "refused"),
    [
        ("{learner.lr: [1e-5, 2e-5]}", 1, None),
        ("{learner.micro_batch_tokens: [4096, 65536]}", 2, r"^eta-1-micro_batch_tokens65536: learner: about"),
        (
            "{teacher.model: [google/gemma-3-1b-it, google/gemma-3-12b-it], learner.lora: [null], learner.processes: [2]}",
            2,
            ": learner: about",
        ),
        ("{rollout.kv_cache_mib: [80000, 40960]}", 2, r"^eta-1-kv_cache_mib80000: rollout: about"),
        ("{calibration.steps: [100, 200]}", 2, None),
        ("{rollout.workers: [2, 3]}", 2, None),
    ],
)
def test_each_kind_of_a_sweep_s_trials_is_told_and_judged(
    over: str, groups: int, refused: str | None, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    sweep = load_job(Sweep, PAPER / "gemma3-bigmath4.yaml", ["sweep.eta=[-1, 1]", f"sweep.over={over}"])
    if refused is None:
        assert dry_run_sweep(sweep, tmp_path)
    else:
        with pytest.raises(InputError, match=refused) as error:
            dry_run_sweep(sweep, tmp_path)
        assert "\n" not in str(error.value)
    said = capsys.readouterr().out
    assert said.count("of 79.6") == groups
    assert said.count("each as this one:" if groups == 1 else "2 as this one (eta-1") == groups


def test_a_sweep_with_gpus_in_a_later_trial_is_told_as_one_for_gpus(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    over = "sweep.over={rollout.gpus: [0, 1]}"
    assert dry_run_sweep(load_job(Sweep, Path("configs/sweep.yaml"), ["sweep.eta=[1]", "students=null", over]), tmp_path)
    assert capsys.readouterr().out.count("of 79.6") == 1


def test_an_unfinished_sweep_is_refused_as_a_start_would(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    sweep = load_job(Sweep, PAPER / "qwen3-bigmath4.yaml", ["sweep.eta=[-1, 1]"])
    (tmp_path / "config.yaml").write_text(public_yaml(sweep))
    with pytest.raises(InputError, match="holds an unfinished run; add --resume"):
        dry_run_sweep(sweep, tmp_path)
    assert dry_run_sweep(sweep, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"^sweep\.beside: "):
        dry_run_sweep(load_job(Sweep, PAPER / "qwen3-bigmath4.yaml", [f"sweep.beside={tmp_path}"]), tmp_path / "other")


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["learner.lora=null", "learner.processes=2"], ["learner: about", "79.6", "raise learner.processes"]),
        (["rollout.kv_cache_mib=70000"], ["rollout: about", "lower rollout.kv_cache_mib"]),
        (["scorer.batch_tokens=100000"], ["anchor + current + proxy: about", "raise scorer.gpus"]),
        (
            ["students.model.model=google/gemma-3-4b-it", "students.methods=[{method: seqkd}]", "students.gpus=1"],
            ["student: about", "raydistill distill"],
        ),
    ],
)
def test_what_fits_no_such_gpu_is_refused_below_its_plan(
    overrides: list[str], names: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        dry_run(preset("gemma3-bigmath4", *overrides), tmp_path)
    assert "\n" not in str(refused.value)
    for name in names:
        assert name in str(refused.value)
    assert "does not fit" in capsys.readouterr().out


def test_a_start_refuses_without_the_models() -> None:
    with pytest.raises(InputError, match=r"^teacher\.model: no folder google/gemma-3-12b-it here, and the hub "):
        check(preset("gemma3-bigmath4"))


def test_models_that_are_here_are_checked_as_for_a_start(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    dry_run(load_run(Path("configs/demo.yaml"), ON_GPUS), tmp_path)
    said = capsys.readouterr().out
    assert "stops at" in said  # the models' table
    assert "not looked at" not in said
    assert "Not here: this machine has 0 of 3 GPUs" in " ".join(said.split())
    with pytest.raises(InputError, match=r"^calibration\.max_new_tokens"):
        dry_run(load_run(Path("configs/demo.yaml"), [*ON_GPUS, "rollout.max_model_len=38"]), tmp_path)


def test_a_model_of_another_kind_is_planned_without_estimates(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raydistill.dry_run.shape_of", lambda _: None)
    dry_run(load_run(Path("configs/demo.yaml"), ON_GPUS), tmp_path)
    assert "teacher.model is no plain decoder" in capsys.readouterr().out


def test_a_sweep_s_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty and not a run's folder"):
        dry_run_sweep(load_job(Sweep, PAPER / "qwen3-bigmath4.yaml"), tmp_path)


def test_without_gpus_a_run_is_for_this_machine(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more actors than there is room for"):
        dry_run(load_run(Path("configs/demo.yaml"), ["rollout.workers=500"]), tmp_path)
    with pytest.raises(InputError, match=r"^teacher\.model: no folder"):
        dry_run(load_run(Path("configs/demo.yaml"), [*ON_GPUS, "teacher.model=no/such/model"]), tmp_path)


def test_a_cluster_elsewhere_is_not_judged(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raydistill.scaling.show.capacity", lambda: None)
    dry_run(preset("qwen3-bigmath4"), tmp_path)
    said = capsys.readouterr().out
    assert "RAY_ADDRESS names has room is seen when it is joined" in said
    assert "Not here" not in said


def part(name: str, processes: int, gpus: float, kind: str) -> Part:
    return Part(name, processes, 0, gpus, 0, "", kind)  # type: ignore[arg-type]


def test_processes_that_ask_for_less_than_a_gpu_share_one() -> None:
    kinds = [part("rollout", 2, 1, "rollout"), part("anchor", 1, 0.5, "rollout"), part("proxy", 1, 0.4, "rollout")]
    kinds += [part("student", 3, 0.5, "student"), part("verifier", 9, 0, "student")]
    memory = {name: Memory(weights=size * GIB, other=0) for name, size in (("rollout", 5), ("anchor", 2), ("proxy", 1), ("student", 4))}
    assert cards(kinds, memory) == [
        Card("rollout", ("rollout",), 2, 5 * GIB),
        Card("rollout", ("anchor", "proxy"), 1, 3 * GIB),
        Card("student", ("student", "student"), 1, 8 * GIB),
        Card("student", ("student",), 1, 4 * GIB),
    ]


def test_verdicts() -> None:
    held = [Card("learner", ("learner",), 1, share * H100.memory) for share in (0.5, 0.95, 1.05)]
    assert [verdict(card, H100) for card in held] == ["fits", "tight", "does not fit"]
    require_fit(held[:2], H100)


def test_hours_are_the_phases_and_gpus_wait() -> None:
    run = preset("gemma3-bigmath4")
    assert run.proxy
    shapes = {"teacher": KNOWN[run.teacher.model], "proxy": KNOWN[run.proxy.model]}
    hours = outline_run(run, shapes, H100).hours
    assert hours
    assert hours.gpus == 8
    assert hours.wall == pytest.approx(sum(phase.seconds * phase.times for phase in hours.phases) / 3600)
    assert hours.reserved == 8 * hours.wall > hours.busy
    twice = outline_run(preset("gemma3-bigmath4", "seeds=[1, 2]"), shapes, H100).hours
    assert twice
    assert 1.9 < twice.wall / hours.wall < 2
    assert outline_run(preset("gemma3-bigmath4", "scorer.gpus=0"), shapes, H100).hours is None


def test_a_learner_alone_holds_what_the_tables_say() -> None:
    """By hand, for Qwen3 8B with rank 32 on 4 processes: bytes."""
    run = preset("qwen3-bigmath4")
    shapes = {"teacher": KNOWN["Qwen/Qwen3-8B"], "proxy": KNOWN["Qwen/Qwen3-0.6B"]}
    held = run_memory(run, shapes)["learner"]
    adapters = 36 * 32 * (2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 12_288))
    assert held.weights == pytest.approx(2 * (8_190_735_360 + adapters) / 4)
    assert held.gradients + held.optimiser == pytest.approx(16 * adapters / 4)
    assert held.logits == 16 * 8192 * 151_936


def test_the_command_line_plans_offline(tmp_path: Path) -> None:
    arguments = ["--config", str(PAPER / "gemma3-bigmath4.yaml"), "--dry-run", "--out", str(tmp_path / "run")]
    environment = ENVIRONMENT | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")}
    for extra, code in (([], 0), (["learner.lora=null", "learner.processes=1"], 2)):
        done = subprocess.run(
            [sys.executable, "workflows/calibrate.py", *arguments, *extra],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=environment,
        )
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (code, bool(code)), done.stderr
        assert "placement" in done.stdout
    assert not (tmp_path / "run").exists()
