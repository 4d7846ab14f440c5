"""Tokens a second and peak memory of distillation, beside TRL's trainers: the same models, data, batches, lengths and threads (Linux).

Teacher-forced KD is KL(teacher || student) on given completions; on-policy is KL(student || teacher) on completions that the student
samples, all of one length: nothing ends them. A token is a completion token that a step learnt from, and a second one of training,
generation included. Each contender is a process of its own; they step in turns, so that a busy machine slows all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from raydistill.models.load import load_model, load_tokenizer
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec
from raydistill.rollout.transformers_engine import TransformersEngine
from raydistill.students.batches import seeded_order
from raydistill.students.data import Encoded
from raydistill.students.distil import Objective, PromptPair, Recipe, TracePair, match_teacher

SPECIAL = ("<pad>", "<eos>", "<unk>")
SHAPES = {
    "student": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 344},
    "teacher": {"hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 5, "intermediate_size": 432},
}
PROMPTS, COMPLETIONS = (16, 96), (16, 128)
"""Fewest and most tokens."""
METHODS = ("kd", "on-policy")
LOSS_TOLERANCE = 1e-3


def main() -> None:
    arguments = _arguments()
    if arguments.contender:
        Contender(arguments).run()
        return
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), arguments.vocabulary)
        for method in METHODS if arguments.method is None else [arguments.method]:
            report(method, compete(Path(folder), method, arguments), arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64, help="of a completion, on-policy")
    parser.add_argument("--warm-up", type=int, default=3, help="steps that are not counted")
    parser.add_argument("--turns", type=int, default=6, help="of each contender; the median is reported")
    parser.add_argument("--steps", type=int, default=4, help="optimiser steps of a turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--method", choices=METHODS, help="this one only")
    parser.add_argument("--contender", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# --- the race


def compete(folder: Path, method: str, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """What each contender measured, or why it did not run."""
    runs = {name: Run(name, method, folder, arguments) for name in CONTENDERS}
    for _ in range(arguments.turns + 1):  # the first turn is the warm-up
        for run in runs.values():
            run.turn()
    return {name: run.finish() for name, run in runs.items()}


class Run:
    """A contender's process, which waits for a line, takes a turn and says how long it took."""

    def __init__(self, name: str, method: str, folder: Path, arguments: argparse.Namespace) -> None:
        self._log = (folder / f"{method}-{name}.log").open("w+")
        command = [sys.executable, __file__, *sys.argv[1:], "--method", method, "--contender", name, "--folder", str(folder)]
        # A thread that spins while it waits takes the processor from the one that it waits for, where other programs run too.
        threads = {"OMP_NUM_THREADS": str(arguments.threads), "OMP_WAIT_POLICY": "passive"}
        environment = {**os.environ, **threads, "PYTHONWARNINGS": "ignore"}
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self._turns: list[dict[str, Any]] = []

    def turn(self) -> None:
        said = self._ask()
        if said is not None:
            self._turns.append(said)

    def finish(self) -> dict[str, Any]:
        last = self._ask()
        if self._process.wait() or last is None:
            return {"failure": self._last_words()}
        turns = self._turns[1:]
        rates = {unit: statistics.median(turn["tokens"] / turn[unit] for turn in turns) for unit in ("seconds", "cpu_seconds")}
        return {**last, **rates, "tokens": sum(turn["tokens"] for turn in turns)}

    def _ask(self) -> dict[str, Any] | None:
        given, said = self._process.stdin, self._process.stdout
        if given is None or said is None:
            return None
        try:
            given.write("go\n")
            given.flush()
        except BrokenPipeError:
            return None
        line = said.readline()
        return json.loads(line) if line else None

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self._process.returncode}"


def report(method: str, results: dict[str, dict[str, Any]], arguments: argparse.Namespace) -> None:
    ran = {name: result for name, result in results.items() if "failure" not in result}
    print(f"{method}: vocabulary {arguments.vocabulary}, batch {arguments.batch}, {arguments.threads} threads, float32")
    print("                       tokens/s  tokens/CPU s   peak MiB  before training   tokens  first loss")
    for name, result in results.items():
        if name in ran:
            rates = f"{result['seconds']:11.0f} {result['cpu_seconds']:13.0f} {result['mib']:10.0f} {result['mib_before']:16.0f}"
            print(f"{name:20} {rates} {result['tokens']:8} {result['loss']:11.7f}")
        else:
            print(f"{name:20} did not run: {result['failure']}")
    rivals = [result for name, result in ran.items() if name != "raydistill"]
    if "raydistill" in ran and rivals:
        own = ran["raydistill"]
        ratios = [own[unit] / max(rival[unit] for rival in rivals) for unit in ("seconds", "cpu_seconds")]
        memory = own["mib"] / min(rival["mib"] for rival in rivals)
        print(
            "raydistill over the best of TRL: {:.2f} in tokens/s, {:.2f} in tokens/CPU s; {:.2f} of the least memory".format(
                *ratios, memory
            )
        )
        if method == "kd":
            difference = max(abs(own["loss"] - rival["loss"]) for rival in rivals)
            print(f"first losses differ by {difference:.1e}: {'the same' if difference < LOSS_TOLERANCE else 'NOT THE SAME'} loss")
    print()


# --- one contender


class Contender:
    """One trainer in this process. A step ends when its optimiser has stepped, whoever made that."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.on_policy = arguments.method == "on-policy"
        self.steps = arguments.warm_up + arguments.turns * arguments.steps
        self.losses: list[float] = []
        """Of each step."""
        self.tokens = 0
        """That the steps up to now learnt from."""
        self._out = _private_stdout()
        self._turns = self._clock()

    def run(self) -> None:
        torch.set_num_threads(self.arguments.threads)
        train = CONTENDERS[self.arguments.contender](self)
        before = _mib("VmRSS")
        next(self._turns)
        register_optimizer_step_post_hook(lambda *_: next(self._turns))
        train()
        self._say({"loss": self.losses[0], "mib": _mib("VmHWM"), "mib_before": before})

    def _clock(self) -> Iterator[None]:
        """Goes on by a step; waits before each turn for its start, and says after it how long it took."""
        for steps in [self.arguments.warm_up] + [self.arguments.steps] * self.arguments.turns:
            sys.stdin.readline()
            tokens, start, cpu_start = self.tokens, time.perf_counter(), time.process_time()
            for _ in range(steps):
                yield
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            self._say({"tokens": self.tokens - tokens, "seconds": seconds, "cpu_seconds": cpu_seconds})
        sys.stdin.readline()
        yield

    def _say(self, what: dict[str, Any]) -> None:
        print(json.dumps(what), file=self._out, flush=True)

    def model(self, role: str) -> Any:
        return load_model(self.arguments.folder / role).requires_grad_(role == "student")

    def data(self) -> list[list[Encoded]]:
        """The sequences of each step."""
        sequences = make_data(self.arguments.vocabulary)
        return [[sequences[row] for row in rows] for rows in seeded_order(len(sequences), self.arguments.batch, self.steps, seed=0)]


def _private_stdout() -> IO[str]:
    """What is printed from now on goes to the log, but for what is written here."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return out


class Endless(TransformersEngine):
    """Completions of one length, as no token ends them."""

    def __init__(self, spec: EngineSpec, contender: Contender) -> None:
        super().__init__(spec)
        self._transcriber.stop_ids = frozenset()
        self._contender = contender

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int) -> list[list[Completion]]:
        completions = super().generate(prompts, sampling, version)
        self._contender.tokens += sum(len(one.token_ids) for samples in completions for one in samples)
        return completions


class Counted(list[TracePair]):
    """Traces that count the tokens of what is taken."""

    def __init__(self, traces: Sequence[TracePair], contender: Contender) -> None:
        super().__init__(traces)
        self._contender = contender

    def __getitem__(self, row: Any) -> Any:
        trace = super().__getitem__(row)
        self._contender.tokens += len(trace.student.completion_ids)
        return trace


def raydistill(contender: Contender) -> Callable[[], object]:
    arguments = contender.arguments
    student, teacher = contender.model("student"), contender.model("teacher")
    longest = PROMPTS[1] + arguments.new_tokens
    engine = Endless(EngineSpec("transformers", str(arguments.folder / "student"), longest, threads=arguments.threads), contender)
    data = make_data(arguments.vocabulary)
    prompts = [PromptPair(one.prompt_ids, one.prompt_ids) for one in data]
    traces = Counted([TracePair(one, one) for one in data], contender)
    recipe = Recipe(contender.steps, arguments.batch, arguments.lr, seed=0)
    objective = Objective(jsd_beta=1.0, on_policy=1.0) if contender.on_policy else Objective(jsd_beta=0.0, on_policy=0.0)

    def train() -> None:
        contender.losses += match_teacher(student, engine, teacher, prompts, traces, recipe, objective, arguments.new_tokens)

    return train


def _trl_settings(contender: Contender) -> dict[str, Any]:
    """What a user would choose for speed: no logs, files or checkpointing, the fused optimiser. Padding is to the longest of a batch."""
    return {
        "output_dir": str(contender.arguments.folder / "trl"),
        "max_steps": contender.steps,
        "per_device_train_batch_size": contender.arguments.batch,
        "learning_rate": contender.arguments.lr,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "beta": 1.0 if contender.on_policy else 0.0,
        "temperature": 1.0,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def trl_gkd(contender: Contender) -> Callable[[], object]:
    from datasets import Dataset
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    class Trainer(GKDTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            contender.tokens += int((inputs["labels"] != -100).sum())
            contender.losses.append(float(loss.detach()))
            return loss

    rows = [
        {
            "prompt": "",
            "input_ids": [*one.prompt_ids, *one.completion_ids],
            "completion_mask": [0] * len(one.prompt_ids) + [1] * len(one.completion_ids),
        }
        for step in contender.data()
        for one in step
    ]
    config = GKDConfig(
        **_trl_settings(contender),
        lmbda=1.0 if contender.on_policy else 0.0,
        max_new_tokens=contender.arguments.new_tokens,
        train_sampling_strategy="sequential",
    )
    student = contender.model("student")
    student.generation_config.eos_token_id = None  # nothing ends a completion
    tokenizer = load_tokenizer(contender.arguments.folder / "student")
    trainer = Trainer(student, contender.model("teacher"), config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.generation_config.eos_token_id = None
    return trainer.train


def trl_distillation(contender: Contender) -> Callable[[], object]:
    """It only trains on completions that it samples; for KD it is made to take the given ones for them, at no cost."""
    from datasets import Dataset
    from trl import DistillationConfig, DistillationTrainer

    given = iter(contender.data())

    class Trainer(DistillationTrainer):
        def _generate_single_turn(self, *arguments: Any, **more: Any) -> Any:
            if contender.on_policy:
                return super()._generate_single_turn(*arguments, **more)
            return [list(one.completion_ids) for one in next(given)]

        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            contender.tokens += int(inputs["completion_mask"].sum())
            contender.losses.append(float(loss.detach()))
            return loss

    config = DistillationConfig(
        **_trl_settings(contender),
        max_completion_length=contender.arguments.new_tokens,
        generation_kwargs={"eos_token_id": None},
        shuffle_dataset=False,
    )
    tokenizer = load_tokenizer(contender.arguments.folder / "student")
    rows = [{"prompt": tokenizer.decode(one.prompt_ids)} for step in contender.data() for one in step]
    student = contender.model("student")
    student.generation_config.eos_token_id = None  # nothing ends a completion
    trainer = Trainer(student, contender.model("teacher"), config, Dataset.from_list(rows), processing_class=tokenizer)
    trainer.eos_token_ids = []
    return trainer.train


CONTENDERS: dict[str, Callable[[Contender], Callable[[], object]]] = {
    "raydistill": raydistill,
    "trl-gkd": trl_gkd,
    "trl-distillation": trl_distillation,
}
"""Each loads its models and data, and gives what trains."""


# --- models and data


def write_models(folder: Path, vocabulary: int) -> None:
    """Llamas with random weights, and a tokenizer whose words are numbers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = [*SPECIAL, *(str(number) for number in range(len(SPECIAL), vocabulary))]
    core = Tokenizer(models.WordLevel({word: id_ for id_, word in enumerate(words)}, unk_token=SPECIAL[2]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    special = dict(zip(("pad_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, padding_side="left", **special)
    for seed, (role, shape) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        config = LlamaConfig(
            **shape,
            vocab_size=vocabulary,
            head_dim=32,
            max_position_embeddings=PROMPTS[1] + COMPLETIONS[1],
            initializer_range=0.08,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
            dtype="float32",
        )
        model = LlamaForCausalLM(config)
        print(f"{role}: {sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters")
        model.save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)


def make_data(vocabulary: int, count: int = 256) -> list[Encoded]:
    stream = random.Random(0)

    def words(fewest: int, most: int) -> tuple[int, ...]:
        return tuple(stream.randrange(len(SPECIAL), vocabulary) for _ in range(stream.randint(fewest, most)))

    return [Encoded(words(*PROMPTS), words(*COMPLETIONS)) for _ in range(count)]


def _mib(field: str) -> float:
    """A field of this process's memory status: VmRSS, resident now, or VmHWM, the most that ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


if __name__ == "__main__":
    main()
