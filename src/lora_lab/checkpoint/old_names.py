"""Names of tensors that older releases of diffusers and transformers wrote."""

import re

from torch import Tensor

_OLD_VAE_ATTENTION = {
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def modern_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate names of older diffusers and transformers versions.

    transformers 4 prefixed CLIP's text tower with `text_model.` and stored `position_ids`;
    diffusers before 0.18 called the VAE's attention layers query, key, value and proj_attn.
    """
    renamed = {}
    for key, tensor in tensors.items():
        if key.endswith("embeddings.position_ids"):
            continue
        key = key.removeprefix("text_model.")
        match = re.fullmatch(r"(.*mid_block\.attentions\.0)\.(\w+)\.(weight|bias)", key)
        if match and match[2] in _OLD_VAE_ATTENTION:
            key = f"{match[1]}.{_OLD_VAE_ATTENTION[match[2]]}.{match[3]}"
        renamed[key] = tensor
    return renamed
