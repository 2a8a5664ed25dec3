"""What the UNet is told of a caption: hidden states of the text encoder.

A text encoder that isn't trained says the same of a caption each time. Its answers are then kept,
for the runs of a stack together, and captions are encoded one by one, so that a kept answer and a
fresh one are the same bytes.

Shapes: B captions, T chunks a caption, L tokens a chunk, D hidden size.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel

from lora_lab.checkpoint.base_model import encode_prompt_hidden
from lora_lab.prompts import apply_weights

MAX_KEPT_BYTES = 512 * 2**20
"""Kept answers of a run or a stack take no more memory than this; 2,000 captions of SD 1.5."""


def encode_captions(
    text_encoder: CLIPTextModel,
    input_ids: Tensor,
    weights: Tensor | None,
    clip_skip: int,
    restore_mean: bool = True,
) -> Tensor:
    """Hidden states of captions; those of chunks are joined as kohya joins them.

    The start of the first chunk, the tokens of all, the end of the last.

    Args:
        text_encoder: CLIP's text tower; gradients flow if its weights ask for them.
        input_ids: int64, (B, L) or (B, T, L).
        weights: What each token's hidden state is multiplied by, (B, T, L); None: 1.
        clip_skip: Which hidden state from the end; 1 is the last layer.
        restore_mean: Whether weights leave the mean of each chunk as it was.

    Returns:
        (B, L, D), or (B, T * (L - 2) + 2, D).
    """
    if input_ids.ndim == 2:
        return encode_prompt_hidden(text_encoder, input_ids, clip_skip)
    count, chunks, length = input_ids.shape
    hidden = encode_prompt_hidden(text_encoder, input_ids.flatten(0, 1), clip_skip)  # (B*T, L, D)
    if weights is not None:
        flat = weights.flatten(0, 1)
        hidden = apply_weights(hidden, flat) if restore_mean else hidden * flat[..., None]
    hidden = hidden.view(count, chunks, length, -1)
    middle = hidden[:, :, 1:-1].flatten(1, 2)
    return torch.cat([hidden[:, 0, :1], middle, hidden[:, -1, -1:]], dim=1)


class KeptAnswers:
    """What a frozen text encoder said of captions: of one run, or of all that share it."""

    def __init__(self) -> None:
        self.answers: dict[tuple[Any, ...], Tensor] = {}
        """All that an answer depends on -> hidden states of one caption, (1, ..., D)."""
        self.bytes = 0

    def add(self, key: tuple[Any, ...], hidden: Tensor) -> None:
        """Keep an answer, if there is room."""
        size = hidden.numel() * hidden.element_size()
        if self.bytes + size <= MAX_KEPT_BYTES:
            self.answers[key] = hidden
            self.bytes += size


class CaptionEncoder:
    """Encodes captions, and keeps the answers where the text encoder is frozen.

    Args:
        clip_skip: Which hidden state from the end; 1 is the last layer.
        frozen: Whether the text encoder stays as it is.
        keep: Whether answers are kept; they are the same bytes either way.
        restore_mean: Whether weights leave the mean of each chunk as it was.
        encode: What encodes captions while the text encoder is trained.
        kept: Answers that other runs on the same frozen text encoder gave and take; None keeps
            those of this run alone.
    """

    def __init__(
        self,
        clip_skip: int,
        frozen: bool,
        keep: bool = True,
        restore_mean: bool = True,
        encode: Callable[..., Tensor] = encode_captions,
        kept: KeptAnswers | None = None,
    ) -> None:
        self.clip_skip = clip_skip
        self.restore_mean = restore_mean
        self.frozen = frozen
        self.keep = keep
        self.encode = encode
        self.kept = KeptAnswers() if kept is None else kept

    def __call__(
        self, text_encoder: CLIPTextModel, input_ids: Tensor, weights: Tensor | None
    ) -> Tensor:
        """Hidden states of captions; see ``encode_captions``."""
        if not self.frozen:
            return self.encode(text_encoder, input_ids, weights, self.clip_skip, self.restore_mean)
        rows = []
        for index in range(len(input_ids)):
            one = slice(index, index + 1)
            row_weights = None if weights is None else weights[one]
            rows.append(self._one(text_encoder, input_ids[one], row_weights))
        return torch.cat(rows)

    def _encoded(
        self, text_encoder: CLIPTextModel, input_ids: Tensor, weights: Tensor | None
    ) -> Tensor:
        return encode_captions(
            text_encoder, input_ids, weights, self.clip_skip, restore_mean=self.restore_mean
        )

    def _one(
        self, text_encoder: CLIPTextModel, input_ids: Tensor, weights: Tensor | None
    ) -> Tensor:
        key = self._key(input_ids, weights)
        if key in self.kept.answers:
            return self.kept.answers[key]
        with torch.no_grad():
            hidden = self._encoded(text_encoder, input_ids, weights)
        if self.keep:
            self.kept.add(key, hidden)
        return hidden

    def _key(self, input_ids: Tensor, weights: Tensor | None) -> tuple[Any, ...]:
        """All that differs between answers of one text encoder in one process."""
        device = input_ids.device.type
        parts = [
            None if part is None else (tuple(part.shape), part.cpu().numpy().tobytes())
            for part in (input_ids, weights)
        ]
        number = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return self.clip_skip, self.restore_mean, number, *parts
