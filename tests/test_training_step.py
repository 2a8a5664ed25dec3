"""The training step against its formulas, written out by hand in float64.

A model of two layers between latents and prediction, told by one layer over the caption, each with
a LoRA. Loss and gradient are NumPy's, by the chain rule; nothing of the project computes them.

Shapes: B images a batch, P = h * w places, C latent channels, H hidden size, L tokens.
"""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.network import LoRANetwork, inject_lora
from lora_lab.training.module import LoRAModule
from tiny_model import sd15_noise_scheduler, tiny_tokenizer, tiny_vae
from train_setup import train_config

C, H, L, SIDE, WORDS = 4, 5, 3, 2, 11
DIM, ALPHA = 2, 3.0
GAMMA, PRIOR = 5.0, 0.3
TIMESTEPS = (20, 400, 900, 150)
"""Of four images; the SNR of the first and the last lies above gamma."""
LAYERS = ("text_encoder.layers.0.fc", "unet.inner.first", "unet.inner.second")
LEAVES = ("lora_down.weight", "lora_up.weight")
Arrays = dict[str, np.ndarray]


class Block(nn.Module):
    """What gets a LoRA: the tests' family names this class."""


class Words(nn.Module):
    """A text encoder of one layer over an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(num_hidden_layers=1)
        self.embedding = nn.Embedding(WORDS, H)
        layer = Block()
        layer.fc = nn.Linear(H, H)
        self.layers = nn.ModuleList([layer])
        self.final_layer_norm = nn.Identity()

    def forward(self, input_ids: Tensor, output_hidden_states: bool) -> Any:
        layer: Any = self.layers[0]
        return SimpleNamespace(hidden_states=(layer.fc(self.embedding(input_ids)),))


class TwoLayers(nn.Module):
    """Each place by itself: W2 tanh(W1 x + mean of the caption + t / 1000)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Block()
        self.inner.first, self.inner.second = nn.Linear(C, H), nn.Linear(H, C)

    def forward(
        self, noisy: Tensor, timesteps: Tensor, hidden: Tensor, return_dict: bool
    ) -> tuple[Tensor]:
        inner: Any = self.inner
        told = hidden.mean(dim=1, keepdim=True) + timesteps.view(-1, 1, 1) / 1000
        rows = inner.first(noisy.flatten(2).mT) + told  # (B, P, H)
        return (inner.second(torch.tanh(rows)).mT.reshape(noisy.shape),)


def make_base(prediction_type: str) -> BaseModel:
    torch.manual_seed(0)
    scheduler = sd15_noise_scheduler()
    scheduler.register_to_config(prediction_type=prediction_type)
    blocks = {"unet": ("Block",), "text_encoder": ("Block",)}
    parts: dict[str, Any] = {"unet": TwoLayers(), "text_encoder": Words(), "vae": tiny_vae()}
    return BaseModel(
        **parts,
        tokenizer=tiny_tokenizer(),
        noise_scheduler=scheduler,
        name="two layers",
        path=Path("two layers"),
        fingerprint="",
        vae_fingerprint="",
        family=replace(SD15, lora_blocks=blocks),
    )


def make_batch(images: slice, step_images: int, masked: bool) -> Batch:
    """Some of four images; the third is one of the class, the fourth is masked in half."""
    draws = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 4, C, SIDE, SIDE, generator=draws)
    input_ids = torch.randint(0, WORDS, (4, L), generator=draws)
    masks = torch.ones(4, 1, SIDE, SIDE)
    masks[0] = torch.tensor([[1.0, 0.25], [0.0, 0.5]])
    masks[3, :, 0] = 0.0
    count = len(range(4)[images])
    return Batch(
        latents=latents[images],
        noise=noise[images],
        offset_noise=torch.zeros(count, C, 1, 1),
        offset_strength=torch.zeros(count),
        noise_levels=None,
        perturbation=None,
        timesteps=torch.tensor(TIMESTEPS)[images],
        input_ids=input_ids[images],
        token_weights=None,
        loss_weights=torch.tensor([1.0, 1.0, PRIOR, 1.0])[images],
        masks=masks[images] if masked else None,
        keys=list("abcd"[images]),
        step=1,
        epoch=1,
        step_images=step_images,
        ends_step=images.stop == 4,
        ends_epoch=images.stop == 4,
    )


def doubles(base: BaseModel, network: LoRANetwork) -> Arrays:
    """Every weight of the model and of the LoRA in float64."""
    found: dict[str, Tensor] = {}
    for target, layer in network.layers.items():
        path = f"{target.part}.{target.path}"
        found[f"{path}.weight"] = target.layer.weight
        assert target.layer.bias is not None
        found[f"{path}.bias"] = target.layer.bias
        found |= {f"{path}.{leaf}": tensor for leaf, tensor in layer.parameters().items()}
    embedding: Any = base.text_encoder
    found["embedding"] = embedding.embedding.weight
    return {name: tensor.detach().numpy().astype(np.float64) for name, tensor in found.items()}


def alphas_cumprod() -> np.ndarray:
    """Of Stable Diffusion 1.5: the betas' roots lie on a straight line."""
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return np.cumprod(1 - betas)


def by_hand(
    weights: Arrays, batches: list[Batch], prediction_type: str, gamma: float
) -> tuple[list[np.ndarray], Arrays]:
    """The weighted losses of each batch's images, and the gradient of the mean over the step."""
    factor = ALPHA / DIM  # arXiv 2106.09685, section 4.1
    full = {
        layer: weights[f"{layer}.weight"]
        + factor * weights[f"{layer}.{LEAVES[1]}"] @ weights[f"{layer}.{LEAVES[0]}"]
        for layer in LAYERS
    }
    text, first, second = LAYERS
    count = sum(len(batch["keys"]) for batch in batches)
    losses, slopes = [], {layer: np.zeros_like(full[layer]) for layer in LAYERS}
    for batch in batches:
        x0, noise = (batch[name].double().numpy() for name in ("latents", "noise"))
        x0, noise = (a.reshape(len(a), C, -1).transpose(0, 2, 1) for a in (x0, noise))  # (B, P, C)
        times = batch["timesteps"].numpy()
        kept = alphas_cumprod()[times]
        signal, spread = np.sqrt(kept)[:, None, None], np.sqrt(1 - kept)[:, None, None]

        noisy = signal * x0 + spread * noise
        embedded = weights["embedding"][batch["input_ids"].numpy()]  # (B, L, H)
        caption = embedded @ full[text].T + weights[f"{text}.bias"]
        told = caption.mean(axis=1)[:, None] + times[:, None, None] / 1000
        hidden = np.tanh(noisy @ full[first].T + weights[f"{first}.bias"] + told)
        predicted = hidden @ full[second].T + weights[f"{second}.bias"]

        wanted = noise if prediction_type == "epsilon" else signal * noise - spread * x0
        error = predicted - wanted
        snr = kept / (1 - kept)
        shown = np.minimum(snr, gamma) if gamma else snr
        weight = shown / (snr if prediction_type == "epsilon" or not gamma else snr + 1)
        weight = weight * batch["loss_weights"].double().numpy()
        mask = np.ones((len(x0), SIDE * SIDE))
        if batch["masks"] is not None:
            mask = batch["masks"].double().numpy().reshape(mask.shape)
        places = mask[:, :, None] / (SIDE * SIDE * C)
        losses.append(weight * (places * error**2).sum(axis=(1, 2)))

        down = 2 * weight[:, None, None] * places * error / count  # dLoss / dpredicted
        slopes[second] += np.einsum("bpc,bph->ch", down, hidden)
        down = (down @ full[second]) * (1 - hidden**2)  # before the tanh
        slopes[first] += np.einsum("bph,bpc->hc", down, noisy)
        slopes[text] += np.einsum("bh,blk->hk", down.sum(axis=1) / L, embedded)
    gradient = {}
    for layer in LAYERS:
        lora_down, lora_up = (weights[f"{layer}.{leaf}"] for leaf in LEAVES)
        gradient[f"{layer}.{LEAVES[0]}"] = factor * lora_up.T @ slopes[layer]
        gradient[f"{layer}.{LEAVES[1]}"] = factor * slopes[layer] @ lora_down.T
    return losses, gradient


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("batches", "masked", "gamma"),
    [
        ([slice(0, 4)], False, 0.0),
        ([slice(0, 4)], True, GAMMA),
        ([slice(0, 3), slice(3, 4)], True, GAMMA),
    ],
    ids=["plain", "weighted", "accumulated"],
)
def test_loss_and_gradient_are_those_of_the_formulas(
    batches, masked, gamma, prediction_type, tmp_path
):
    """min-SNR (arXiv 2303.09556), masks, the prior's weight, and batches of unlike sizes."""
    config: TrainConfig = train_config(
        tmp_path,
        tmp_path,
        model__clip_skip=1,
        network__dim=DIM,
        network__alpha=ALPHA,
        objective__min_snr_gamma=gamma,
        trainer__accumulate_grad_batches=len(batches),
    )
    base = make_base(prediction_type)
    shown = [make_batch(images, 4, masked) for images in batches]
    with inject_lora(base, config.network, config.seed) as network:
        draws = torch.Generator().manual_seed(2)
        for layer in network.layers.values():  # both matrices, so that both have a gradient
            shapes = {leaf: tensor.shape for leaf, tensor in layer.parameters().items()}
            layer.load({leaf: torch.randn(s, generator=draws) for leaf, s in shapes.items()})
        module = LoRAModule(base, network, config, 10)
        module.configure_optimizers()
        module.zero_grad()
        for index, batch in enumerate(shown):
            # Lightning divides by the batches of a full step (test_same_bytes.py).
            (module.training_step(batch, index) / len(shown)).backward()
        losses, expected = by_hand(doubles(base, network), shown, prediction_type, gamma)
        found = {
            f"{target.part}.{target.path}.{leaf}": parameter.grad
            for target, layer in network.layers.items()
            for leaf, parameter in layer.parameters().items()
        }
    for mine, theirs in zip(module.losses, losses, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=1e-5)
    assert found.keys() == expected.keys() and len(found) == 2 * len(LAYERS)
    for name, gradient in expected.items():
        size = np.abs(gradient).max()
        assert size > 1e-3
        np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-5 * size, err_msg=name)


def test_the_step_gives_the_mean_of_the_weighted_losses(tmp_path):
    """Of one batch, what is told as the loss of the step."""
    config = train_config(tmp_path, tmp_path, model__clip_skip=1, network__dim=DIM)
    base, batch = make_base("epsilon"), make_batch(slice(0, 4), 4, masked=True)
    with inject_lora(base, config.network, config.seed) as network:
        module = LoRAModule(base, network, config, 10)
        loss = float(module.training_step(batch, 0).detach())
        ((losses,), _) = by_hand(
            doubles(base, network), [batch], "epsilon", config.objective.min_snr_gamma
        )
    assert loss == pytest.approx(losses.mean(), rel=1e-5)
