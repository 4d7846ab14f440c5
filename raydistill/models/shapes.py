"""The sizes of a model's parts: all that the arithmetic of memory and time needs, known also of some models that are not here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.models.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder of transformer blocks with gated MLPs and without biases, as Gemma 3, Qwen3 and Llama are."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    """Rows of the embedding."""
    tied: bool
    """Whether the output layer is the embedding."""
    window: int | None = None
    """Tokens that a layer of sliding-window attention looks back on."""
    full_layers: int | None = None
    """How many layers attend to all tokens, the others to the window; None means all."""
    norms: int = 0
    """Parameters of all norms."""
    extra: int = 0
    """Parameters beside the language model, such as a vision tower: held in memory, never passed by a token of text."""

    @property
    def queries(self) -> int:
        """Width of the attention heads together."""
        return self.heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of the keys of a token in one layer; that of its values is the same."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the embedding, the largest tensor."""
        return self.vocabulary * self.hidden

    @property
    def block_matrices(self) -> int:
        """Parameters of the linear layers of all blocks, which is where LoRA's `all-linear` puts its adapters."""
        attention = self.hidden * (2 * self.queries + 2 * self.keys)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def text_parameters(self) -> int:
        """Of the language model alone."""
        return self.block_matrices + self.norms + self.embedding * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All that is loaded."""
        return self.text_parameters + self.extra

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: without the look-up of its embedding, with the output layer."""
        return self.block_matrices + self.embedding

    def adapters(self, rank: int) -> int:
        """Parameters of LoRA adapters of this rank on all linear layers of the blocks: rank * (inputs + outputs) of each."""
        attention = 2 * (self.hidden + self.queries) + 2 * (self.hidden + self.keys)
        return self.layers * rank * (attention + 3 * (self.hidden + self.intermediate))


def _gemma3(layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, **others: int) -> Shape:
    """Every sixth layer is a full one; four norms of the hidden width and two of a head's in each."""
    fields = {"vocabulary": 262_208, "window": 1024} | others
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=256,
        intermediate=intermediate,
        tied=True,
        full_layers=layers // 6,
        norms=layers * (4 * hidden + 2 * 256) + hidden,
        **fields,
    )


def _qwen3(layers: int, hidden: int, heads: int, intermediate: int, tied: bool) -> Shape:
    """Full attention throughout; two norms of the hidden width and two of a head's in each layer."""
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=8,
        head_dim=128,
        intermediate=intermediate,
        vocabulary=151_936,
        tied=tied,
        norms=layers * (2 * hidden + 2 * 128) + hidden,
    )


KNOWN: Mapping[str, Shape] = {
    # Those with a vision tower and its projector (`extra`) are loaded with it.
    "google/gemma-3-12b-it": _gemma3(48, 3840, 16, 8, 15_360, extra=421_290_864),
    "google/gemma-3-4b-it": _gemma3(34, 2560, 8, 4, 10_240, extra=419_816_304),
    "google/gemma-3-1b-it": _gemma3(26, 1152, 4, 1, 6912, vocabulary=262_144, window=512),
    "Qwen/Qwen3-8B": _qwen3(36, 4096, 32, 12_288, tied=False),
    "Qwen/Qwen3-1.7B": _qwen3(28, 2048, 16, 6144, tied=True),
    "Qwen/Qwen3-0.6B": _qwen3(28, 1024, 16, 3072, tied=True),
    # A reward model: its head (`extra`) stands in the place of the output layer.
    "Skywork/Skywork-Reward-V2-Qwen3-8B": replace(_qwen3(36, 4096, 32, 12_288, tied=True), extra=4096),
}
"""By hub name, from each model's config.json. tests/models/test_shapes.py counts them again by transformers' own classes."""


def shape_of(checkpoint: Checkpoint) -> Shape | None:
    """The shape of a model that is here; None where it is of another kind: experts, plain MLPs, no attention."""
    from transformers import AutoConfig

    # Its class knows what config.json leaves out.
    config = AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False).get_text_config()
    if any("expert" in name and value for name, value in config.to_dict().items()):
        return None
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    try:
        shape = Shape(
            layers=config.num_hidden_layers,
            hidden=config.hidden_size,
            heads=config.num_attention_heads,
            kv_heads=config.num_key_value_heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            intermediate=config.intermediate_size,
            vocabulary=config.vocab_size,
            tied=not any(name.endswith("lm_head.weight") for name in checkpoint.tensors),
            window=window,
            full_layers=list(config.layer_types).count("full_attention") if window else None,
        )
    except AttributeError:
        return None
    return replace(shape, extra=checkpoint.parameters - shape.text_parameters)  # its norms among them
