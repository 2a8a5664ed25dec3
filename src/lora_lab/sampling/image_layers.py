"""A model's layers as drawing calls them: each image of a batch by itself, with its own weights.

Images of several LoRAs share a batch: what no LoRA changes is computed for all at once, a changed
layer takes each image's rows times the weights of its own LoRA. A product is always of one image's
rows, so its shape, and with it the rounding, is the same in every batch. On a CPU an image has
the same bytes whatever it is drawn with. Several threads may draw a batch each by the same layers.

Shapes: N images of a batch, R rows of an image in a pass (its negative prompt and the parts of its
prompt), L positions of a row, M = R · L.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, group_norm, linear

LayerWeights = Mapping[nn.Module, Tensor]
"""Layer -> the weight that it has for some images, (out, in[, kh, kw])."""

TIME_LAYERS = ("time_embedding", "time_emb_proj")
"""In the paths of layers that read the timestep alone."""
TEXT_LAYERS = ("attn2.to_k", "attn2.to_v")
"""At the ends of the paths of layers that read the prompt alone."""
TEXTS_KEPT = 4
"""Inputs of a text layer whose outputs are kept: a prompt, a negative one, parts of a prompt."""
SMALL = 20_480
"""Up to so many numbers PyTorch computes a convolution of one row by another algorithm."""


@dataclass
class BatchRows:
    """What the layers know of a batch that is being drawn."""

    owned: list[tuple[slice, LayerWeights]]
    """Places of images in the batch, and the weights that they have in place of the model's."""
    images: int
    """0: each row is an image."""
    same_time: bool
    """Whether all images have the same weights in the layers that read the timestep."""
    texts: dict[nn.Module, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)
    """Text layer -> (input, output) of the latest calls."""


class ImageLayers:
    """The linear, convolution and normalization layers of a UNet or VAE.

    Args:
        model: Whose layers are called otherwise within `images`.
    """

    def __init__(self, model: nn.Module) -> None:
        self._calls: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
        self._time_layers: list[nn.Module] = []
        self._thread = threading.local()  # its .batch is the BatchRows that this thread draws
        self._lock = threading.Lock()
        self._batches = 0
        for path, layer in model.named_modules():
            if isinstance(layer, nn.Linear):
                self._calls[layer] = self._linear_call(path, layer)
            elif isinstance(layer, nn.Conv2d):
                self._calls[layer] = self._convolution_call(layer)
            elif isinstance(layer, nn.GroupNorm):
                self._calls[layer] = partial(_normalize, layer)

    @contextmanager
    def images(self, owned: Sequence[tuple[int, LayerWeights]] = ()) -> Iterator[None]:
        """While the block runs, a pass of this thread has the rows of these images, image by image.

        Other threads may be in such a block at the same time. One that isn't in any can't call the
        model until all have left theirs.

        Args:
            owned: (number of images, the weights that they have in place of the model's), in the
                order of the batch. Empty: each row is an image, with the model's own weights.
        """
        self._thread.batch = self._rows(owned)
        with self._lock:
            if not self._batches:
                for layer, call in self._calls.items():
                    layer.__dict__["forward"] = call
            self._batches += 1
        try:
            yield
        finally:
            del self._thread.batch
            with self._lock:
                self._batches -= 1
                if not self._batches:
                    for layer in self._calls:
                        del layer.__dict__["forward"]

    def _rows(self, owned: Sequence[tuple[int, LayerWeights]]) -> BatchRows:
        edges = [0, *accumulate(count for count, _ in owned)]
        places = [slice(start, stop) for start, stop in pairwise(edges)]
        all_weights = [weights for _, weights in owned]
        same_time = not any(
            layer in weights for layer in self._time_layers for weights in all_weights
        )
        return BatchRows(list(zip(places, all_weights, strict=True)), edges[-1], same_time)

    @property
    def _batch(self) -> BatchRows:
        """The batch that this thread draws."""
        found: BatchRows = self._thread.batch
        return found

    def _linear_call(self, path: str, layer: nn.Linear) -> Callable[[Tensor], Tensor]:
        if any(name in path for name in TIME_LAYERS):
            self._time_layers.append(layer)
            return lambda inputs: self._time(layer, inputs)
        if path.endswith(TEXT_LAYERS):
            return lambda inputs: self._text(layer, inputs)
        return lambda inputs: self._linear(layer, inputs)

    def _convolution_call(self, layer: nn.Conv2d) -> Callable[[Tensor], Tensor]:
        plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
        if layer.kernel_size == (1, 1) and plain:
            return lambda inputs: self._pointwise(layer, inputs)
        return lambda inputs: self._convolution(layer, inputs)

    def _linear(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        """(N · R, ..., in) -> (N · R, ..., out)."""
        rows = inputs.reshape(self._batch.images or len(inputs), -1, inputs.shape[-1])  # (N, M, in)
        return self._products(layer, rows).view(*inputs.shape[:-1], -1)

    def _pointwise(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        """A 1x1 convolution: (N · R, in, h, w) -> (N · R, out, h, w)."""
        pixels = inputs.permute(0, 2, 3, 1)  # (N · R, h, w, in)
        rows = pixels.reshape(self._batch.images or len(pixels), -1, pixels.shape[-1])
        return self._products(layer, rows).view(*pixels.shape[:-1], -1).permute(0, 3, 1, 2)

    def _products(self, layer: nn.Linear | nn.Conv2d, rows: Tensor) -> Tensor:
        """Each image's rows (M, in) times its own weight: (N, M, out)."""
        result = rows.new_empty(*rows.shape[:2], len(layer.weight))
        for place, weight in self._weights(layer):
            own = rows[place]
            matrices = weight.flatten(1).mT.expand(len(own), -1, -1)  # (n, in, out)
            if layer.bias is None:
                torch.bmm(own, matrices, out=result[place])
            else:
                torch.baddbmm(layer.bias, own, matrices, out=result[place])
        return result

    def _weights(self, layer: nn.Linear | nn.Conv2d) -> list[tuple[slice, Tensor]]:
        """Which images have which weight."""
        if not any(layer in weights for _, weights in self._batch.owned):
            return [(slice(None), layer.weight)]
        return [(place, weights.get(layer, layer.weight)) for place, weights in self._batch.owned]

    def _time(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        """All rows are at one timestep: (N · R, in) -> (N · R, out), once for equal weights."""
        if self._batch.same_time:
            return linear(inputs[:1], layer.weight, layer.bias).expand(len(inputs), -1)
        of_image = len(inputs) // self._batch.images
        found = []
        for place, weights in self._batch.owned:
            first = place.start * of_image
            one = linear(inputs[first : first + 1], weights.get(layer, layer.weight), layer.bias)
            found.append(one.expand((place.stop - place.start) * of_image, -1))
        return torch.cat(found)

    def _text(self, layer: nn.Linear, inputs: Tensor) -> Tensor:
        """The keys or values of a prompt, which are the same at every step: computed once."""
        kept = self._batch.texts.setdefault(layer, [])
        for before, result in kept:
            if before is inputs:
                return result
        result = self._linear(layer, inputs)
        self._batch.texts[layer] = [*kept, (inputs, result)][-TEXTS_KEPT:]
        return result

    def _convolution(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        """(N · R, in, h, w) -> (N · R, out, h', w')."""
        of_image = len(inputs) // (self._batch.images or len(inputs))
        found = []
        for place, weight in self._weights(layer):
            whole = place.start is None
            rows = slice(None) if whole else slice(place.start * of_image, place.stop * of_image)
            found.append(_convolve(layer, inputs[rows], weight))
        return found[0] if len(found) == 1 else torch.cat(found)


def _normalize(layer: nn.GroupNorm, inputs: Tensor) -> Tensor:
    """Group normalization; several threads of a CPU divide the pixels of one row alone."""
    divided = inputs.device.type == "cpu" and torch.get_num_threads() > 1
    rows = inputs.split(1) if divided else (inputs,)
    found = [group_norm(row, layer.num_groups, layer.weight, layer.bias, layer.eps) for row in rows]
    return found[0] if len(found) == 1 else torch.cat(found)


def _convolve(layer: nn.Conv2d, inputs: Tensor, weight: Tensor) -> Tensor:
    """A convolution whose rows are computed as in any larger batch."""
    alone = len(inputs) == 1 and inputs.numel() <= SMALL
    rows = torch.cat([inputs, inputs]) if alone else inputs
    result = conv2d(
        rows, weight, layer.bias, layer.stride, layer.padding, layer.dilation, layer.groups
    )
    return result[:1] if alone else result
