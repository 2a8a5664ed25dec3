"""The training step: noise, prediction, weighted loss, on a frozen base with a LoRA beside it.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens, D hidden size.
"""

from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from torch.nn import Parameter

from lora_lab.base_model import BaseModel
from lora_lab.caption_encoder import CaptionEncoder
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.network import LoRANetwork, flatten
from lora_lab.objective import (
    add_noise,
    image_means,
    min_snr_weights,
    offset_noise,
    signal_to_noise,
    squared_error,
    target,
)
from lora_lab.optimizers import build_optimizer
from lora_lab.schedules import build_schedule


class LoRAModule(pl.LightningModule):
    """One LoRA in training.

    Args:
        base: The frozen base model, with the LoRA in it.
        network: The LoRA.
        config: The run's settings.
        total_steps: Optimizer steps of the whole run.
    """

    def __init__(
        self, base: BaseModel, network: LoRANetwork, config: TrainConfig, total_steps: int
    ) -> None:
        super().__init__()
        self.strict_loading = False  # a checkpoint holds the LoRA alone
        self.unet = base.unet
        self.text_encoder = base.text_encoder
        self.network = network
        self.lora_beside = network.beside  # so that they move and are saved with the module
        self.config = config
        self.total_steps = total_steps
        self.prediction_type: str = base.noise_scheduler.config["prediction_type"]
        self.alphas_cumprod: Tensor
        alphas_cumprod = base.noise_scheduler.alphas_cumprod.clone()  # (T,)
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)
        frozen = not config.network.train_text_encoder
        self.captions = CaptionEncoder(config.model.clip_skip, frozen)
        self.flat: dict[str, Parameter] = {}
        """The trainable tensors by part, each part as one flat tensor."""
        self.losses: list[Tensor] = []
        """Weighted loss of each image since the last optimizer step, one tensor (B,) a batch."""
        self.record: dict[str, float] = {}
        """Figures of the current step; callbacks add to it, the logging callback empties it."""
        self.train()

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        input_ids: Tensor,
        token_weights: Tensor | None = None,
    ) -> Tensor:
        """What the UNet makes of noisy latents and captions, (B, C, h, w)."""
        hidden = self.captions(self.text_encoder, input_ids, token_weights)  # (B, L, D)
        return self.unet(noisy, timesteps, hidden, return_dict=False)[0]

    def image_losses(self, batch: Batch, noise: Tensor) -> Tensor:
        """Mean squared error of each image within its mask, without other weights, (B,)."""
        latents, timesteps = batch["latents"], batch["timesteps"]
        noisy = add_noise(latents, noise, timesteps, self.alphas_cumprod)
        wanted = target(self.prediction_type, latents, noise, timesteps, self.alphas_cumprod)
        prediction = self.predict(noisy, timesteps, batch["input_ids"], batch["token_weights"])
        if batch["masks"] is None:
            return squared_error(prediction, wanted)
        return image_means((prediction.float() - wanted.float()) ** 2, batch["masks"])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean weighted loss of a batch."""
        objective = self.config.objective
        self.network.dropout.begin(batch["step"], batch["keys"])
        noise = offset_noise(batch["noise"], batch["offset_draw"], objective.noise_offset)
        losses = self.image_losses(batch, noise)
        snr = signal_to_noise(self.alphas_cumprod[batch["timesteps"]])
        weights = min_snr_weights(snr, objective.min_snr_gamma, self.prediction_type)
        weighted = losses * weights * batch["loss_weights"]  # (B,)
        self.losses.append(weighted.detach())
        return weighted.mean()

    def on_after_backward(self) -> None:
        """Dropout belongs to training alone; what is measured in between sees all of it."""
        self.network.dropout.end()

    def configure_optimizers(self) -> Any:
        """The optimizer over flat tensors, and its schedule, which moves on each step."""
        parts = self.network.trainable(self.config.model.clip_skip)
        self.flat = {name: flatten(tensors) for name, tensors in parts.items() if tensors}
        groups = {name: [tensor] for name, tensor in self.flat.items()}
        optimizer = build_optimizer(groups, self.config.optimizer)
        schedule = build_schedule(optimizer, self.config.schedule, self.total_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients in place: the layers' gradients are views of the flat ones.

        Args:
            set_to_none: Not honoured, because a gradient of None would end the view; Lightning
                asks for it before the first step.
        """
        for tensor in self.flat.values():
            assert tensor.grad is not None
            tensor.grad.zero_()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Clear gradients before each step."""
        self.zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the LoRA's tensors alone; the base is read from its own file."""
        checkpoint["state_dict"] = {
            name: tensor for name, tensor in checkpoint["state_dict"].items() if "lora_" in name
        }

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Begin a new record; Lightning calls this after all callbacks."""
        if batch["ends_step"]:
            self.record.clear()
            self.losses.clear()
