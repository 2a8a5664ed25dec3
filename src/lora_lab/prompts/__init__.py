r"""Prompts as AUTOMATIC1111's web UI reads them.

In the order in which a prompt is taken apart:

1. `choices`: `{a|b}` and `__name__` become one of their choices.
2. `networks`: `<lora:name:0.8>` names a LoRA and is not part of the text.
3. `composition`: `a AND b :0.5` are prompts of their own, added with their weights.
4. `editing`: `[a:b:0.5]` and `[a|b]` change the text from step to step.
5. `attention`: `(x)` times 1.1, `[x]` divided by 1.1, `(x:1.3)` times 1.3, `\(` only a bracket,
   `BREAK` a new chunk.
6. `chunks`: tokens in chunks of 75, with the names of textual inversions replaced by their vectors.

Any text is a valid prompt: what is not closed holds to the end, what was never opened is text.
"""

from lora_lab.prompts.attention import ParsedPrompt, parse_prompt, plain_text
from lora_lab.prompts.chunks import Chunks, Insert, apply_weights, empty_chunk, token_ids, tokenize
from lora_lab.prompts.composition import SubPrompt, split_composition
from lora_lab.prompts.editing import Phase, edited_texts
from lora_lab.prompts.embeddings import Embedding, read_embedding, read_embeddings
from lora_lab.prompts.networks import LoRATag, take_networks
from lora_lab.prompts.wildcards import Wildcards, expand_choices, wildcards_of

__all__ = [
    "Chunks",
    "Embedding",
    "Insert",
    "LoRATag",
    "ParsedPrompt",
    "Phase",
    "SubPrompt",
    "Wildcards",
    "apply_weights",
    "edited_texts",
    "empty_chunk",
    "expand_choices",
    "parse_prompt",
    "plain_text",
    "read_embedding",
    "read_embeddings",
    "split_composition",
    "take_networks",
    "token_ids",
    "tokenize",
    "wildcards_of",
]
