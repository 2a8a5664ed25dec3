"""The network's settings as they are typed, and the text encoder's own rate."""

from dataclasses import replace

import pytest
import torch
from hydra.errors import ConfigCompositionException

from lora_lab.checkpoint.base_model import load_base
from lora_lab.config import check
from lora_lab.errors import ConfigError
from lora_lab.network import inject_lora
from lora_lab.optimizers import step_rates
from lora_lab.training.module import LoRAModule
from settings import composed
from train_setup import train_config

GUIDE = ("model=sd15", "model.checkpoint=x", "data=folder", "data.dir=x", "sampling=sd15")


@pytest.mark.parametrize(
    ("network", "name", "conv_dim"),
    [
        ("lora", "lora", None),
        ("lora_conv", "lora", 8),
        ("loha", "loha", None),
        ("lokr", "lokr", None),
    ],
)
def test_each_network_is_one_word(network, name, conv_dim):
    config = composed(f"network={network}", *GUIDE)
    check(config)
    assert (config.network.name, config.network.conv_dim) == (name, conv_dim)


@pytest.mark.parametrize("dim", [2, 8, 32])
def test_alpha_can_be_tied_to_dim(dim):
    config = composed(f"network.dim={dim}", "network.alpha=${network.dim}")
    assert config.network.alpha == dim and isinstance(config.network.alpha, float)


def test_a_lora_to_merge_is_typed_as_file_and_weight():
    config = composed("model.merge=[{file:a.safetensors,weight:0.8}]")
    check(config)
    (item,) = config.model.merge
    assert (item.file, item.weight) == ("a.safetensors", 0.8)
    with pytest.raises(ConfigCompositionException, match=r"model\.merge"):
        composed("model.merge=[{fil:a.safetensors,weight:0.8}]")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.conv_dim=4"], "conv_dim and network.conv_alpha must both be null or both be"),
        (["network.dropout=1"], r"network\.dropout must be >= 0 and < 1, got 1"),
        (["network.rank_dropout=-0.1"], r"network\.rank_dropout must be >= 0 and < 1, got -0\.1"),
        (["network.dim_from_weights=true"], "must be false without network.weights, got true"),
        (["network=loha", "network.dora=true"], "network.dora must be false with network=loha"),
        (["network=lokr", "network.rslora=true"], "network.rslora must be false with network=lokr"),
        (["network=lokr", "network.dropout=0.1"], "network.dropout must be 0 with network=lokr"),
        (["network.dora=true", "network.module_dropout=0.1"], "must be 0 with network.dora=true"),
        (["network=lokr", "network.factor=0"], r"network\.factor must be >= 1, or -1, got 0"),
        (["network.name=locon"], r"network\.name must be one of lora, loha, lokr, got 'locon'"),
        (["model.prediction_type=x0"], r"must be one of epsilon, v_prediction or null, got 'x0'"),
        (["model.merge=[{file:'',weight:1.0}]"], r"model\.merge must be a list of \{file"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_reason(overrides, message):
    with pytest.raises(ConfigError, match=message):
        check(composed(*overrides))


def first_step(tiny_base, factor: float) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Rates of D-Adaptation's third step and how far it moves each part, for fixed gradients."""
    config = train_config(tiny_base, tiny_base, optimizer__text_encoder_lr=factor)
    config = replace(config, optimizer=replace(config.optimizer, weight_decay=0.0, d0=1e-3))
    base = load_base(str(tiny_base), parts=("unet", "text_encoder"))
    module = LoRAModule(base, inject_lora(base, config.network, 0), config, total_steps=100)
    optimizer = module.configure_optimizers()["optimizer"]
    flats = {part: tensors[0] for part, tensors in module.trained.items()}
    for _ in range(3):
        rates = step_rates(optimizer)
        before = {part: flat.detach().clone() for part, flat in flats.items()}
        draws = torch.Generator().manual_seed(1)
        for flat in flats.values():
            assert flat.grad is not None
            flat.grad.copy_(torch.randn(flat.shape, generator=draws))
        optimizer.step()
    dlr = {part: float(rate) for part, rate in rates.dlr.items()}
    return dlr, {part: flat.detach() - before[part] for part, flat in flats.items()}


def test_the_text_encoders_rate_is_its_factor_times_the_unets(tiny_base):
    """What is logged, and what the step does with it: a fifth of the way, the UNet as before."""
    plain_rates, plain = first_step(tiny_base, 1.0)
    rates, moved = first_step(tiny_base, 0.2)
    assert plain_rates["text_encoder"] == pytest.approx(plain_rates["unet"])
    assert rates["text_encoder"] == pytest.approx(0.2 * rates["unet"])
    torch.testing.assert_close(moved["unet"], plain["unet"], rtol=1e-2, atol=1e-7)
    torch.testing.assert_close(
        moved["text_encoder"], 0.2 * plain["text_encoder"], rtol=1e-2, atol=1e-7
    )
    assert moved["text_encoder"].abs().max() > 1e-4
