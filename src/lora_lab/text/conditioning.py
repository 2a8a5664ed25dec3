"""What a prompt becomes for the UNet: hidden states of the text encoder, step by step.

Shapes: T chunks of a prompt, S phases of an edited prompt, C hidden size of the text encoder.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from lora_lab.checkpoint.base_model import BaseModel, encode_prompt_hidden
from lora_lab.prompts import (
    Chunks,
    Embedding,
    Insert,
    Phase,
    SubPrompt,
    apply_weights,
    edited_texts,
    empty_chunk,
    parse_prompt,
    split_composition,
    take_networks,
    tokenize,
)


@dataclass(frozen=True)
class PromptPart:
    """One prompt of a composition; a prompt without AND is one part."""

    weight: float
    last_steps: tuple[int, ...]
    """Last step of each phase, counted from 1."""
    hidden: Tensor
    """(S, T * 77, C)."""

    def phase(self, call: int) -> int:
        """Which phase a call of the UNet belongs to.

        Args:
            call: Number of the call from 0. As in the web UI a phase that ends at step n serves the
                calls up to n, so the first phase serves one call more than its steps.
        """
        return next((i for i, last in enumerate(self.last_steps) if call <= last), 0)

    def at(self, call: int) -> Tensor:
        """The hidden states for a call of the UNet, (T * 77, C)."""
        return self.hidden[self.phase(call)]


@dataclass(frozen=True)
class Conditioning:
    """A prompt as the UNet takes it."""

    parts: tuple[PromptPart, ...]

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each part; images with equal lengths can share a batch."""
        return tuple(part.hidden.shape[1] for part in self.parts)

    def to(self, device: torch.device) -> "Conditioning":
        """The same on another device; text encoders stay on the CPU."""
        return Conditioning(
            tuple(replace(part, hidden=part.hidden.to(device)) for part in self.parts)
        )


def encode(
    base: BaseModel,
    prompt: str,
    *,
    clip_skip: int,
    calls: int,
    embeddings: Sequence[Embedding] = (),
    composed: bool = True,
) -> Conditioning:
    """Encode a prompt; the LoRAs that it names must be applied already.

    Args:
        base: Whose text encoder and tokenizer are used, LoRAs included.
        prompt: In the web UI's syntax, choices already made.
        clip_skip: Which hidden state from the end; 1 is the last layer.
        calls: Calls of the UNet while an image is drawn; edits count in these.
        embeddings: Textual inversions that the prompt may name.
        composed: Whether AND splits the prompt; in a negative prompt it is a word.
    """
    text, _ = take_networks(prompt)
    parts = []
    for sub in split_composition(text) if composed else (SubPrompt(text, 1.0),):
        phases = edited_texts(sub.text, calls)
        hidden = _encode_phases(base, phases, clip_skip, embeddings)
        parts.append(PromptPart(sub.weight, tuple(phase.last_step for phase in phases), hidden))
    longest = max(part.hidden.shape[1] for part in parts)
    return Conditioning(tuple(_lengthened(part, longest) for part in parts))


def _encode_phases(
    base: BaseModel, phases: Sequence[Phase], clip_skip: int, embeddings: Sequence[Embedding]
) -> Tensor:
    """Hidden states of an edited prompt's phases, (S, T * 77, C); equal texts are encoded once."""
    texts = list(dict.fromkeys(phase.text for phase in phases))
    chunks = [tokenize(parse_prompt(text), base.tokenizer, embeddings) for text in texts]
    length = max(len(chunk.input_ids) for chunk in chunks)
    filled = [_filled(chunk, length, base.tokenizer) for chunk in chunks]
    hidden = torch.stack(
        [encode_chunks(base.text_encoder, chunk, clip_skip) for chunk in filled], dim=1
    )  # (T, texts, 77, C)
    place = [texts.index(phase.text) for phase in phases]
    weights = torch.stack([chunk.weights for chunk in filled], dim=1)  # (T, texts, 77)
    weighted = apply_weights(hidden[:, place], weights[:, place])  # (T, S, 77, C)
    return weighted.transpose(0, 1).flatten(1, 2)


def _filled(chunks: Chunks, length: int, tokenizer: CLIPTokenizer) -> Chunks:
    """The prompt with empty chunks at its end, as many as another phase has more."""
    missing = length - len(chunks.input_ids)
    if not missing:
        return chunks
    empty = empty_chunk(tokenizer)
    return Chunks(
        torch.cat([chunks.input_ids, *[empty.input_ids] * missing]),
        torch.cat([chunks.weights, *[empty.weights] * missing]),
        chunks.inserts,
    )


def _lengthened(part: PromptPart, tokens: int) -> PromptPart:
    """The part with its last vector repeated, as the web UI evens out a composition."""
    missing = tokens - part.hidden.shape[1]
    last = part.hidden[:, -1:].expand(-1, missing, -1)
    return PromptPart(part.weight, part.last_steps, torch.cat([part.hidden, last], dim=1))


def encode_chunks(text_encoder: CLIPTextModel, chunks: Chunks, clip_skip: int) -> Tensor:
    """Encode a prompt's chunks, textual inversions in their places; without weights.

    Returns:
        (T, 77, C).
    """
    with _inserted(text_encoder, chunks.inserts):
        input_ids = chunks.input_ids.to(text_encoder.device)
        return encode_prompt_hidden(text_encoder, input_ids, clip_skip).float().cpu()


@contextmanager
def _inserted(text_encoder: CLIPTextModel, inserts: Sequence[Insert]) -> Iterator[None]:
    """Let the token embedding give the inserted vectors in their places."""

    def replace(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        result = output.clone()
        for insert in inserts:
            end = insert.column + len(insert.vectors)
            result[insert.row, insert.column : end] = insert.vectors.to(output)
        return result

    if not inserts:
        yield
        return
    handle = text_encoder.embeddings.token_embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


class Guidance:
    """The noise that a batch's prompts ask for: classifier-free guidance of compositions.

    noise = n + scale * sum_i w_i (p_i - n): arXiv 2207.12598, eq. 6 with scale = 1 + w for one
    part, arXiv 2206.01714, eq. 11 for several.

    Args:
        unet: The UNet, LoRAs included.
        prompts: One an image, all of the same lengths.
        negatives: One an image, all of the same length.
        scale: CFG; 1 leaves out the negative prompts, and their cost, unless parts have weights.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        prompts: Sequence[Conditioning],
        negatives: Sequence[Conditioning],
        scale: float,
    ) -> None:
        self.unet = unet
        self.scale = scale
        columns = list(zip(*[prompt.parts for prompt in prompts], strict=True))
        device = prompts[0].parts[0].hidden.device
        weights = [[part.weight for part in column] for column in columns]
        self._factors = [
            scale * torch.tensor(column, device=device)[:, None, None, None] for column in weights
        ]  # one (B, 1, 1, 1) a part
        self._alone = len(columns) == 1 and all((factor == 1).all() for factor in self._factors)
        negative = [image.parts[0] for image in negatives]
        self._columns = columns if self._alone else [negative, *columns]
        self._phases: list[list[int]] = []
        self._states: list[Tensor] = []

    def noise_pred(self, model_input: Tensor, timestep: Tensor, call: int) -> Tensor:
        """The guided noise for one call of the UNet.

        Args:
            model_input: (B, 4, h, w).
            timestep: ().
            call: Number of the call from 0, which edited prompts go by.

        Returns:
            (B, 4, h, w).
        """
        states = self._at(call)
        if len(states) == 1:
            count = len(self._columns)
            rows = model_input.repeat_interleave(count, dim=0)  # (B * count, 4, h, w)
            noise = self.unet(rows, timestep, states[0], return_dict=False)[0]
            predicted = noise.unflatten(0, (-1, count)).unbind(1)
        else:
            predicted = tuple(
                self.unet(model_input, timestep, state, return_dict=False)[0] for state in states
            )
        if self._alone:
            return predicted[0]
        without = predicted[0]
        noise = without.clone()
        for direction, factor in zip(predicted[1:], self._factors, strict=True):
            noise += factor * (direction - without)
        return noise

    def _at(self, call: int) -> list[Tensor]:
        """Hidden states of negative prompts and parts, the same tensors until a phase ends.

        Returns:
            One tensor, image by image, (B * columns, T * 77, C), where all are of one length; else
            one for each column, (B, T * 77, C).
        """
        phases = [[part.phase(call) for part in column] for column in self._columns]
        if phases != self._phases:
            self._phases = phases
            states = [torch.stack([part.at(call) for part in column]) for column in self._columns]
            together = len({state.shape for state in states}) == 1
            self._states = [torch.stack(states, dim=1).flatten(0, 1)] if together else states
        return self._states
