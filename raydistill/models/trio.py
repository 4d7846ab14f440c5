"""The demo trio: a teacher, a proxy and a student that are tiny enough for a CPU and are ordinary Hugging Face folders.

Teacher and student are Llamas that read characters; the proxy has a BPE tokenizer of its own, so that every score that
crosses from one to the other goes through text. All three were pretrained on the mixture of `tasks.arithmetic` (see
`models.pretrain`); `workflows/build_trio.py` builds them from nothing. A second trio, `demo-corrections`, is alike but for
traces in which a wrong step is put right, and the character that says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

Role = Literal["teacher", "proxy", "student"]
ROLES: tuple[Role, ...] = get_args(Role)

PAD, BOS, EOS, UNK = "<pad>", "<bos>", "<eos>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNK)
CHARACTERS = "0123456789+-=;#~ abcdefghijABCDEFGH"
PROXY_VOCABULARY = 113
MAX_POSITIONS = 128
TRIOS = {"demo": "demo_trio", "demo-corrections": "demo_corrections_trio"}
"""What stands before the colon of a shipped model's name, and the folder of its trio."""

# head_dim is 32 whatever the width, because vLLM's CPU attention refuses smaller ones. The wide initial weights halve the
# number of steps that models of this size need.
_SHAPES: dict[Role, dict[str, Any]] = {
    "teacher": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 176},
    "proxy": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 88},
    "student": {"hidden_size": 40, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 80},
}


def demo_model(role: Role, trio: str = "demo") -> Path:
    """The shipped Hugging Face folder of one model of a trio."""
    return Path(__file__).parent / TRIOS[trio] / role


def _wrap(core: Tokenizer) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer that puts <bos> before a text, appends nothing, and decodes every character as it was."""
    from tokenizers import decoders, processors
    from transformers import PreTrainedTokenizerFast

    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, SPECIAL_TOKENS.index(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_POSITIONS,
    )


def character_tokenizer(characters: str = CHARACTERS) -> PreTrainedTokenizerFast:
    """One token a character of the task; teacher and student share it."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE

    vocabulary = {token: id_ for id_, token in enumerate([*SPECIAL_TOKENS, *characters])}
    return _wrap(Tokenizer(BPE(vocabulary, merges=[], unk_token=UNK)))


def bpe_tokenizer(texts: Iterable[str], characters: str = CHARACTERS) -> PreTrainedTokenizerFast:
    """The proxy's tokenizer: a BPE of PROXY_VOCABULARY tokens learnt from `texts`, which covers every character of the task."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer

    core = Tokenizer(BPE(unk_token=UNK))
    trainer = BpeTrainer(
        vocab_size=PROXY_VOCABULARY, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=list(characters), show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return _wrap(core)


def llama_config(role: Role, tokenizer: PreTrainedTokenizerBase, layers: int | None = None) -> LlamaConfig:
    """The architecture of one model of a trio, with another number of layers if given."""
    from transformers import LlamaConfig

    return LlamaConfig(
        **_SHAPES[role] | ({"num_hidden_layers": layers} if layers else {}),
        vocab_size=len(tokenizer),
        head_dim=32,
        max_position_embeddings=MAX_POSITIONS,
        initializer_range=0.08,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )


def new_model(role: Role, tokenizer: PreTrainedTokenizerBase, seed: int, layers: int | None = None) -> LlamaForCausalLM:
    """One model of a trio with random weights, the same ones for the same seed. Leaves torch's global stream as it was."""
    import torch
    from transformers import LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(llama_config(role, tokenizer, layers))
