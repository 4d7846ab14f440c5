"""What vLLM's worker gains so that weights can be streamed into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


class ReloadExtension:
    """Mixed into vLLM's worker class by `worker_extension_cls`."""

    vllm_config: Any
    model_config: Any
    model_runner: Any
    reload_weights: Any

    def stream_weights(self, named_tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Replace all weights, a layer at a time, by those of an iterator; if it raises, the weights are undefined but replaceable."""
        from vllm.config import set_current_vllm_config
        from vllm.model_executor.model_loader.reload import finalize_layerwise_reload

        try:
            self.reload_weights(weights_iterator=named_tensors)
            for name, _ in named_tensors:
                raise RuntimeError(f"vLLM left {name} unread")
            self._repack_heads()
        except BaseException:
            # Otherwise the layers keep what they buffered, and the next load would mix it with its own.
            with set_current_vllm_config(self.vllm_config):
                finalize_layerwise_reload(self.model_runner.get_model(), self.model_config)
            raise

    def _repack_heads(self) -> None:
        """On a CPU an output head works on a packed copy of its weight. A reload renews it, unless the head is tied to the embedding."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        for module in self.model_runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                module.quant_method.process_weights_after_loading(module)
