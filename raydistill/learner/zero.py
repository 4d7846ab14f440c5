"""DeepSpeed: the process group, a model loaded in ZeRO-3 partitions, and the engine that trains it."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from raydistill.errors import InputError
from raydistill.learner.batch import ZeroSpec
from raydistill.learner.ops import refuse_stale_locks

if TYPE_CHECKING:
    from deepspeed import DeepSpeedEngine
    from transformers import PreTrainedModel

ADAPTER = "default"
"""peft's name of the one adapter."""


def join_process_group(rank: int, world_size: int, address: str, port: int, local_rank: int = 0) -> None:
    """Make this process one rank of a DeepSpeed process group: nccl where it has a GPU, else (or if DS_ACCELERATOR is cpu) gloo.

    `local_rank` is the place of its GPU among those that it sees. Must run before anything else imports deepspeed, which picks its
    accelerator when it is imported. A process that is a member already stays in its group, which must be of the same shape.
    """
    gpu = os.environ.get("DS_ACCELERATOR") != "cpu" and torch.cuda.is_available()
    if not gpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        refuse_stale_locks()
    # DeepSpeed calls ninja by name, also to load an op that was built before.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(local_rank), MASTER_ADDR=address, MASTER_PORT=str(port))
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    deepspeed.init_distributed(dist_backend="nccl" if gpu else "gloo", auto_mpi_discovery=False, rank=rank, world_size=world_size)
    joined = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if joined != (rank, world_size):
        raise ValueError(f"this process is rank {joined[0]} of {joined[1]} already, and cannot be rank {rank} of {world_size}")


def _deepspeed_config(spec: ZeroSpec) -> dict[str, Any]:
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # only counted by DeepSpeed, never used
        "gradient_accumulation_steps": 1,  # boundaries are set by hand: their number differs from step to step
        "gradient_clipping": spec.max_grad_norm,
        "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": spec.persistence_threshold},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }
    if spec.dtype == "bfloat16":
        config |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    return config


def _load(spec: ZeroSpec, config: dict[str, Any]) -> PreTrainedModel:
    """The model, each parameter partitioned as it is made, so that no process ever holds it whole."""
    from transformers import AutoModelForCausalLM
    from transformers.integrations import HfDeepSpeedConfig

    if not (Path(spec.model) / "config.json").is_file():
        raise InputError(f"{spec.model}: not a Hugging Face model folder, it has no config.json")
    partitioning = HfDeepSpeedConfig(config)  # transformers partitions while this object lives
    model = AutoModelForCausalLM.from_pretrained(
        spec.model, dtype=getattr(torch, spec.dtype), use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    del partitioning
    if model.get_output_embeddings() is None:
        raise InputError(f"{spec.model}: {type(model).__name__} has no output embeddings to read log-probabilities from")
    return model


def _add_adapters(spec: ZeroSpec, model: PreTrainedModel) -> torch.nn.Module:
    """The model with fresh LoRA adapters, which are all that is trained; the same on every process, by the seed."""
    from peft import LoraConfig, get_peft_model

    if spec.lora is None:
        return model
    targets = spec.lora.target_modules
    config = LoraConfig(
        r=spec.lora.rank,
        lora_alpha=spec.lora.alpha,  # type: ignore[arg-type]  # peft only multiplies by it
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        return get_peft_model(model, config, adapter_name=ADAPTER, autocast_adapter_dtype=False)


def _optimizer(spec: ZeroSpec, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr)
    return torch.optim.AdamW(parameters, lr=spec.lr, betas=(0.9, 0.999), eps=spec.adam_eps, weight_decay=0.0)


def _without_dropout(module: torch.nn.Module, gradient_checkpointing: bool) -> None:
    """Evaluation mode, because a probability ratio between two dropout masks says nothing about the policy.

    Only blocks whose activations are computed again must believe that they train: transformers looks at that flag.
    """
    module.eval()
    for block in module.modules() if gradient_checkpointing else ():
        block.training = getattr(block, "gradient_checkpointing", False)


def start_engine(spec: ZeroSpec) -> tuple[DeepSpeedEngine, PreTrainedModel]:
    """The engine, and the transformers model inside it (without peft's wrapping), partitioned over the process group.

    Raises InputError if `spec.model` is not a folder with a causal language model.
    """
    import deepspeed

    config = _deepspeed_config(spec)
    model = _load(spec, config)
    if spec.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    module = _add_adapters(spec, model)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    engine = deepspeed.initialize(model=module, optimizer=_optimizer(spec, trained), config=config)[0]
    _without_dropout(engine, spec.gradient_checkpointing)
    return engine, model
