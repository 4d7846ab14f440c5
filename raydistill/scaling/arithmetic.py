"""The arithmetic of memory, traffic and time on GPUs, from a model's shape. Estimates: nothing here has been run on a GPU.

Bytes, seconds, FLOP. `width` is bytes a parameter: 4 in float32, 2 in bfloat16. A constant is either a data sheet's or a library's, named
beside it, or an assumption, and then its name begins with ASSUMED; none was fitted to a measured cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from raydistill.models.shapes import Shape

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """What a data sheet says of a GPU."""

    name: str
    memory: int
    """Bytes."""
    flops: float
    """Dense bfloat16 FLOP a second; data sheets print twice that, with sparsity."""
    bandwidth: float
    """Bytes a second from its memory."""
    link: float
    """Bytes a second, one way, to the other GPUs of its node."""
    network: float
    """Bytes a second, one way, to other nodes, for each GPU."""


H100 = Gpu("H100 80GB SXM", 81_559 * 2**20, 989.4e12, 3.35e12, 450e9, 50e9)
"""NVIDIA's data sheet (SXM5: 1,979 TFLOPS with sparsity, 3.35 TB/s, NVLink 900 GB/s both ways); memory as nvidia-smi shows it; DGX H100: a
400 Gb/s adapter for each of the 8 GPUs of a node."""
GPUS_PER_NODE = 8

ASSUMED_CONTEXT = 0.6 * GIB
"""Bytes of the CUDA context, NCCL and libraries of one process, before any tensor."""
ASSUMED_GRAPHS = 2 * GIB
"""Bytes that vLLM's CUDA graphs take."""
ENGINE_SEQUENCES, ENGINE_TOKENS = 1024, 16_384
"""Sequences at once and tokens a pass of vLLM's LLM class on GPUs of 70 GiB and more (vllm 0.32, engine/arg_utils.py)."""
LIVE_PARAMETERS, PREFETCHED, REDUCED = 10**9, 5 * 10**7, 5 * 10**8
"""Elements that DeepSpeed gathers at most, fetches ahead, and reduces at once (stage3_max_live_parameters, stage3_prefetch_bucket_size,
reduce_bucket_size; its defaults, which nothing here changes)."""
LOGITS_BYTES = 16
"""Of each logit where a loss is taken of all at once: it, its log-probability and both gradients, in float32."""

ASSUMED_UTILISATION = 0.3
"""Share of the peak FLOP/s that training and scoring reach: plain transformers modules under ZeRO-3. Pretraining stacks report .4."""
ASSUMED_DECODING = 0.5
"""Share of the memory bandwidth that decoding reaches."""
ASSUMED_LINK = 0.6
"""Share of a link's bandwidth that ZeRO-3's gathers reach."""
ASSUMED_HOST = 5e9
"""Bytes a second for a copy between a GPU and pageable memory, or within it into Ray's object store."""
ASSUMED_DIGEST = 1e9
"""Bytes a second of SHA-256 on one core, by which each end of a sync makes sure of the weights."""
ASSUMED_OBJECTS = 2e9
"""Bytes a second at which Ray's object store sends to another node: TCP, however fast the network."""


# --- memory of training


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, by what they are for."""

    weights: float = 0.0
    gradients: float = 0.0
    optimiser: float = 0.0
    gathered: float = 0.0
    """Whole parameters of the layers at work, and the buffer of gradients on their way."""
    activations: float = 0.0
    logits: float = 0.0
    kv_cache: float = 0.0
    other: float = ASSUMED_CONTEXT

    @property
    def total(self) -> float:
        return sum(self.__dict__.values())


def zero3_state(parameters: int, trained: int, processes: int, width: int) -> Memory:
    """Weights, gradients and Adam's state that one of n ZeRO-3 processes keeps (Rajbhandari et al. 2020, arXiv 1910.02054, figure 1).

    `parameters` includes LoRA's adapters; `trained` of them have a gradient, which is all without LoRA and the adapters with it. 4 bytes of
    gradient, since they are summed in float32 (`grad_accum_dtype` in raydistill/learner/zero.py; the paper counts 2), and 12 for float32
    masters and two moments. DeepSpeed keeps masters beside weights in float32 too.
    """
    return Memory(weights=width * parameters / processes, gradients=4 * trained / processes, optimiser=12 * trained / processes, other=0)


def gathered_bytes(shape: Shape, width: int) -> float:
    """What a ZeRO-3 process holds beside its partition while layers work: whole parameters up to DeepSpeed's limit, or the embedding where
    that alone is larger, and one buffer of gradients. The same whatever the number of processes, and with one alike."""
    live = min(shape.parameters, max(LIVE_PARAMETERS, shape.embedding) + PREFETCHED)
    return width * (live + REDUCED)


def layer_activation_bytes(shape: Shape, width: int) -> float:
    """A token's activations that one block keeps for its backward pass, attention by a kernel that stores no attention matrix.

    Norms keep their float32 inputs: four of the hidden width at most (Gemma; others have two) and those of queries and keys. In the model's
    type: inputs of two groups of linear layers, queries, keys, values, what attention makes of them, four of the MLP's width.
    """
    norms = 4 * (4 * shape.hidden + shape.queries + shape.keys)
    return norms + width * (2 * shape.hidden + 2 * shape.queries + 2 * shape.keys + 4 * shape.intermediate)


def activation_bytes(shape: Shape, tokens: int, width: int, checkpointing: bool) -> float:
    """Activations of a pass of so many tokens.

    With checkpointing each block keeps its input alone (2 s b h bytes in bfloat16: Korthikanti et al. 2022, arXiv 2205.05198, section 5),
    and one block at a time has all of its own again.
    """
    block = layer_activation_bytes(shape, width)
    if checkpointing:
        return tokens * (shape.layers * width * shape.hidden + block)
    return tokens * shape.layers * block


def logits_bytes(shape: Shape, tokens: int) -> float:
    """Of a loss that is taken of all completion tokens of a pass at once, at most `tokens` of them."""
    return LOGITS_BYTES * tokens * shape.vocabulary


# --- memory of sampling and scoring


def kv_bytes(shape: Shape, tokens: int, width: int, windows: bool = True) -> float:
    """Keys and values of a sequence of so many tokens. Layers of sliding-window attention keep the window alone, as vLLM's hybrid cache
    does; without `windows` they keep all."""
    full = shape.layers if shape.full_layers is None or not windows else shape.full_layers
    kept = full * tokens + (shape.layers - full) * min(tokens, shape.window or tokens)
    return 2 * shape.keys * width * kept


def engine_memory(shape: Shape, kv_cache: float, width: int) -> Memory:
    """Of a vLLM engine: weights, its cache, one pass of prefill, logits and probabilities of as many sequences as it runs at once."""
    passing = ENGINE_TOKENS * width * (2 * shape.hidden + 2 * shape.queries + 2 * shape.intermediate)
    logits = 3 * 4 * ENGINE_SEQUENCES * shape.vocabulary
    return Memory(
        weights=width * shape.parameters, kv_cache=kv_cache, activations=passing, logits=logits, other=ASSUMED_CONTEXT + ASSUMED_GRAPHS
    )


def scorer_memory(shape: Shape, tokens: int, width: int) -> Memory:
    """Of a model that is only passed through: at most one block's activations, and logits of a chunk (raydistill/scoring/forward.py)."""
    return Memory(weights=width * shape.parameters, activations=tokens * layer_activation_bytes(shape, width), logits=3 * 4 * 2**24)


# --- work


def attention_flops(shape: Shape, context: float) -> float:
    """FLOP of one token's attention over so many earlier ones, forward: products with keys and with values, 2 FLOP a multiplication."""
    full = shape.layers if shape.full_layers is None else shape.full_layers
    seen = full * context + (shape.layers - full) * min(context, shape.window or context)
    return 4 * shape.queries * seen


def forward_flops(shape: Shape, prompt: float, completion: float) -> float:
    """FLOP of a pass over a prompt and its completion: 2 for each parameter and token (Kaplan et al. 2020, arXiv 2001.08361, table 1), the
    output layer on the completion alone, and attention over half the length on average."""
    tokens = prompt + completion
    return 2 * (shape.block_matrices * tokens + shape.embedding * completion) + tokens * attention_flops(shape, tokens / 2)


def training_passes(lora: bool, checkpointing: bool) -> int:
    """Forward passes that one of training costs as much as: one, again where activations are computed anew, one for the gradient of the
    activations, and one for that of the weights, which frozen ones do not need. 3 is the usual 6 N."""
    return 1 + checkpointing + 1 + (not lora)


def compute_seconds(flops: float, gpus: float, gpu: Gpu) -> float:
    """Of training and scoring."""
    return flops / (gpus * gpu.flops * ASSUMED_UTILISATION)


def gather_seconds(shape: Shape, width: int, processes: int, gpu: Gpu) -> float:
    """Of one gathering of all parameters by n processes."""
    return exchange_seconds(shape.parameters, width, processes, gpu)


def exchange_seconds(elements: int, width: int, processes: int, gpu: Gpu) -> float:
    """Of one gathering of so many elements by n processes, each of which receives (n - 1) / n of them over the slowest link on the way; or
    of one reduction of as many gradients, each process' partition to it, which moves as much (Rajbhandari et al. 2020, section 7.2)."""
    bandwidth = gpu.link if processes <= GPUS_PER_NODE else gpu.network
    return width * elements * (processes - 1) / processes / (bandwidth * ASSUMED_LINK)


def decode_seconds(
    shape: Shape, sequences: float, at_once: float, prompt: float, mean: float, longest: float, width: int, gpu: Gpu
) -> float:
    """Of sampling completions of `mean` tokens, `longest` at most, on one GPU that runs `at_once` of them.

    Each token needs all weights and the keys and values before it from memory, or as much time as its multiplications. Once fewer
    are left than fit, the last goes on alone: `longest` - `mean` further tokens.
    """
    running = min(sequences, at_once)
    if running < 1:
        return math.inf
    memory = width * (shape.block_matrices + shape.embedding) + running * kv_bytes(shape, int(prompt + mean / 2), width)
    token = max(memory / (gpu.bandwidth * ASSUMED_DECODING), 2 * shape.multiplied * running / (gpu.flops * ASSUMED_UTILISATION))
    alone = width * (shape.block_matrices + shape.embedding) / (gpu.bandwidth * ASSUMED_DECODING)
    return sequences * mean / running * token + (longest - mean) * alone


# --- weights on their way


def sync_bytes(shape: Shape, width: int) -> int:
    """Of one version: all weights leave, LoRA merged into them."""
    return width * shape.parameters


def sync_seconds(shape: Shape, width: int, nodes: int, processes: int, gpu: Gpu) -> float:
    """From learner to engines on `nodes` other nodes: gathered, copied to the first process's host, digested, copied into the object store,
    sent to each node, digested again, copied out of it and to the GPU. One after the other, as the code does it."""
    own = sync_bytes(shape, width)
    host = own * (2 / ASSUMED_HOST + 1 / ASSUMED_DIGEST)
    return gather_seconds(shape, width, processes, gpu) + 2 * host + nodes * own / ASSUMED_OBJECTS
