"""Every tensor follows the model to its device.

Run on torch's meta device, which computes shapes alone, under a watch that refuses what a GPU would
refuse: an operation over tensors of two devices, or random numbers of another device's generator.
A tensor left on the CPU is so found without a GPU.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lora_lab.clock import Clock
from lora_lab.data.data_module import LoRADataModule
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.network import inject_lora
from lora_lab.sampling import generate
from lora_lab.sampling.generate import DrawSettings, ImageRequest, draw_images
from lora_lab.sampling.image_layers import ImageLayers
from lora_lab.sampling.samplers import SAMPLERS
from lora_lab.training.module import LoRAModule
from train_setup import train_config

pytestmark = pytest.mark.usefixtures("two_timesteps")

META = torch.device("meta")
MANY: dict[str, Any] = {
    "objective__noise_offset": 0.1,
    "objective__noise_offset_random": True,
    "objective__ip_noise_gamma": 0.1,
    "objective__loss_type": "huber",
    "network__dropout": 0.1,
    "network__rank_dropout": 0.1,
    "network__module_dropout": 0.1,
    "data__weighted_captions": True,
    "data__max_token_length": 150,
    "data__latents": "sample",
    "trainer__accumulate_grad_batches": 2,
}


class AnyGenerator(torch.Generator):
    """A generator of any device, also of meta, which torch has none for."""

    of_meta: ClassVar[list["AnyGenerator"]] = []
    """Kept, so that each keeps its address; torch hands on the address and no attribute."""

    def __new__(cls, device: Any = "cpu") -> "AnyGenerator":
        on_meta = torch.device(device) == META
        self = super().__new__(cls, "cpu" if on_meta else device)  # type: ignore[call-arg]
        if on_meta:
            cls.of_meta.append(self)
        return self

    @classmethod
    def is_of_meta(cls, generator: Any) -> bool:
        kept: Any = cls.of_meta
        return generator._cdata in {one._cdata for one in kept}


@pytest.fixture(autouse=True)
def generators(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let whoever draws on the model's device find a generator there."""
    monkeypatch.setattr(torch, "Generator", AnyGenerator)
    yield
    AnyGenerator.of_meta.clear()


class OneDevice(TorchDispatchMode):
    """Refuses operations over two devices as CUDA does; what is read from meta is 1.0 or 0."""

    READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.item.default)
    COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.to.dtype_layout)
    PICKS = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if (generator := kwargs.get("generator")) is not None:
            place = kwargs.get("device") or (tensors[0].device if tensors else "cpu")
            drawn_on_meta = torch.device(place) == META
            own = drawn_on_meta == AnyGenerator.is_of_meta(generator)
            assert own, f"{func}: a generator of another device"
            if drawn_on_meta:
                kwargs["generator"] = None  # there are no numbers to draw
        if func is torch.ops.aten.is_nonzero.default and tensors[0].is_meta:
            return True
        if func in self.READS and tensors[0].is_meta:
            return 1.0 if tensors[0].dtype.is_floating_point else 0
        if func is torch.ops.aten.nonzero.default and tensors[0].is_meta:
            return torch.zeros((1, tensors[0].dim()), dtype=torch.long, device=META)
        if func in self.COPIES and tensors[0].is_meta:
            if (kwargs.get("device") or META) != META:
                return torch.ones(tensors[0].shape, dtype=kwargs.get("dtype") or tensors[0].dtype)
        elif func is not torch.ops.aten.copy_.default:
            judged = tensors[:1] if func in self.PICKS and tensors[0].is_meta else tensors
            on_meta = any(tensor.is_meta for tensor in judged)
            left = [tensor for tensor in judged if not tensor.is_meta and tensor.dim() > 0]
            assert not (on_meta and left), f"{func}: {[tuple(t.shape) for t in left]} on the CPU"
        return func(*args, **kwargs)


def test_the_watch_refuses_what_cuda_refuses():
    here, there = torch.ones(2), torch.ones(2, device=META)
    with OneDevice():
        for mixed in (lambda: here + there, lambda: there @ here, lambda: here[there.long()]):
            with pytest.raises(AssertionError, match="on the CPU"):
                mixed()
        for mine, device in ((torch.Generator(META), "cpu"), (torch.Generator(), META)):
            with pytest.raises(AssertionError, match="a generator of another device"):
                torch.rand(2, generator=mine, device=device)
        assert torch.rand(2, generator=torch.Generator(META), device=META).is_meta
        assert (there * torch.tensor(2.0)).is_meta and there[here.long()].is_meta
        assert there.cpu().device.type == "cpu" and there.sum().item() == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        MANY,
        {"objective__multires_noise_iterations": 3, "objective__debiased_estimation": True},
        {"network__name": "loha"},
        {"network__name": "lokr"},
        {"network__dora": True},
    ],
)
def test_a_training_step_and_the_held_out_loss_stay_on_the_device(
    changes: dict[str, Any], tiny_base, tiny_person
) -> None:
    """Forward, backward, optimizer and schedule, in the order in which Lightning calls them."""
    config = train_config(tiny_base, tiny_person, **changes)
    inputs = Inputs.load(config, SharedInputs(), Clock())
    data = LoRADataModule(inputs, config)
    with inject_lora(inputs.base, config.network, config.seed) as network:
        module = LoRAModule(inputs.base, network, config, data.total_steps)
        module.to(META)
        with OneDevice():
            chosen = module.configure_optimizers()
            for index, batch in enumerate(data.train_dataloader()):
                loss = module.training_step(move_data_to_device(batch, META), index)
                loss.backward()
                module.on_after_backward()
                if batch["ends_step"]:
                    break
            chosen["optimizer"].step()
            chosen["lr_scheduler"]["scheduler"].step()
            with torch.no_grad():
                losses = [module.validation_step(probe, 0) for probe in data.val_dataloader()]
    trained = [tensor for tensors in module.trained.values() for tensor in tensors]
    assert trained and losses
    for tensor in (loss, *losses, *trained, *(t.grad for t in trained if t.grad is not None)):
        assert tensor.device == META


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampling_step_stays_on_the_device(
    sampler: str, tiny_base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also image by image. Those of torchsde draw the noise of their trees on the device itself."""
    if "SDE" in sampler:
        pytest.importorskip("torchsde")
    base = SharedInputs().base(train_config(tiny_base, tiny_base).model)
    for part in (base.unet, base.text_encoder, base.vae):
        part.to(META)
    seen: list[Tensor] = []

    def keep(pixels: Tensor, place: tuple[int, int]) -> generate.Drawn:
        seen.append(pixels)
        return generate.Drawn(None, "it has no values", place)

    monkeypatch.setattr(generate, "_drawn", keep)
    settings = DrawSettings(sampler, 3, 4.0, 32, 32, 2, 2)
    requests = [ImageRequest("a (cat:1.2) AND a dog", "[b|c]", seed) for seed in (1, 2)]
    with OneDevice():
        draw_images(base, requests, settings)
        with ImageLayers(base.unet).images([(1, {}), (1, {})]), ImageLayers(base.vae).images():
            draw_images(base, requests, settings)
    assert [pixels.device for pixels in seen] == [META] * 4
