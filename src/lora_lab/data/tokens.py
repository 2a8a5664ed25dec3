"""Captions as token ids.

Shapes: L tokens a caption.
"""

from torch import Tensor
from transformers.models.clip.tokenization_clip import CLIPTokenizer


def tokenize(tokenizer: CLIPTokenizer, text: str) -> Tensor:
    """Token ids padded and cut to the model's length, int64, (L,)."""
    encoded = tokenizer(
        text,
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    )
    return encoded.input_ids[0]
