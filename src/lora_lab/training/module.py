"""The training step: noise, prediction, weighted loss, on a frozen base with a LoRA beside it.

Shapes: B images a batch, C latent channels, h and w latent sides, L tokens, D hidden size;
U losses of a probe.
"""

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import TrainConfig
from lora_lab.data.batch import Batch
from lora_lab.data.probes import Probe
from lora_lab.network import LoRANetwork, flatten
from lora_lab.objective import (
    LOSSES,
    add_noise,
    debiased_weights,
    elementwise_loss,
    huber_thresholds,
    image_means,
    min_snr_weights,
    perturbed_noise,
    signal_to_noise,
    squared_error,
    target,
)
from lora_lab.optimizers import build_optimizer, entry_of, leave_out_steps
from lora_lab.optimizers.schedules import build_schedule, check_schedule
from lora_lab.text.caption_encoder import CaptionEncoder, encode_captions
from lora_lab.training.noising import batch_noise, training_alphas
from lora_lab.training.stacked_run import StackedRun
from lora_lab.training.unread import STEPS_A_READ, Unread


class LoRAModule(pl.LightningModule):
    """One LoRA in training.

    Args:
        base: The frozen base model, with the LoRA in it.
        network: The LoRA.
        config: The run's settings.
        total_steps: Optimizer steps of the whole run.
        stacked: The run's hold on the runs that are trained with it; None trains it alone.

    Raises:
        ConfigError: Settings that don't suit the base model or the length of the run.
    """

    def __init__(
        self,
        base: BaseModel,
        network: LoRANetwork,
        config: TrainConfig,
        total_steps: int,
        stacked: StackedRun | None = None,
    ) -> None:
        super().__init__()
        check_schedule(config.schedule, total_steps)
        self.strict_loading = False  # a checkpoint holds the LoRA alone
        self.stacked = stacked
        parts = {"unet": base.unet, "text_encoder": base.text_encoder}
        if stacked is None:
            self.unet, self.text_encoder = parts.values()
        else:
            self.__dict__ |= parts  # not this module's to move: the base is the stack's
        self.network = network
        self.lora_beside = network.beside  # so that they move and are saved with the module
        self.config = config
        self.total_steps = total_steps
        self.prediction_type: str = base.noise_scheduler.config["prediction_type"]
        self.alphas_cumprod: Tensor
        alphas_cumprod = training_alphas(base, config.objective)  # (T,)
        self.register_buffer("alphas_cumprod", alphas_cumprod, persistent=False)
        frozen = not config.network.train_text_encoder
        self.captions = CaptionEncoder(
            config.model.clip_skip,
            frozen,
            restore_mean=config.data.restore_mean,
            encode=encode_captions if stacked is None else stacked.encode,
            kept=None if stacked is None else stacked.kept,
        )
        self.trained: dict[str, list[Parameter]] = {}
        """What the optimizer steps over, by part: one flat tensor, or the part's own tensors."""
        self.optimizer: Optimizer | None = None
        """The optimizer itself, for what asks for its rates or its averaged weights."""
        self.losses: list[Tensor] = []
        """Weighted loss of each image since the last optimizer step, one tensor (B,) a batch."""
        self.record: dict[str, float | Tensor] = {}
        """Figures of the current step, those of the device as tensors of one number; callbacks add
        to it."""
        self.latest: dict[str, float] = {}
        """Figures of the last step that was read."""
        self.unread = Unread()
        self._freeze_unused()
        self.train()
        if stacked is not None:
            stacked.join(base, network, config, lambda: self.trained)

    def _freeze_unused(self) -> None:
        """Ask for no gradient where none will come: several devices would wait for it."""
        used = self.network.trainable(self.config.model.clip_skip)
        wanted = {id(tensor) for tensors in used.values() for tensor in tensors}
        for parameter in self.parameters():
            if id(parameter) not in wanted:
                parameter.requires_grad_(False)

    @property
    def steps_a_read(self) -> int:
        """How many steps' figures are read at once: reading them on a CPU costs nothing."""
        return 1 if self.device.type == "cpu" else STEPS_A_READ

    def denoise(self, noisy: Tensor, timesteps: Tensor, hidden: Tensor) -> Tensor:
        """What the UNet makes of noisy latents and encoded captions, (B, C, h, w)."""
        if self.stacked is not None:
            return self.stacked.denoise(noisy, timesteps, hidden)
        kind = next(self.unet.parameters()).dtype  # a base in bf16 takes bf16
        return self.unet(noisy.to(kind), timesteps, hidden.to(kind), return_dict=False)[0]

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        input_ids: Tensor,
        token_weights: Tensor | None = None,
    ) -> Tensor:
        """What the UNet makes of noisy latents and captions, (B, C, h, w)."""
        hidden = self.captions(self.text_encoder, input_ids, token_weights)  # (B, L, D)
        return self.denoise(noisy, timesteps, hidden)

    def image_losses(self, batch: Batch) -> Tensor:
        """The loss of each image, without its weights, (B,)."""
        objective, alphas = self.config.objective, self.alphas_cumprod
        timesteps = batch["timesteps"]
        noise = batch_noise(batch, objective)
        seen = noise
        if batch["perturbation"] is not None:
            seen = perturbed_noise(noise, batch["perturbation"], objective.ip_noise_gamma)
        noisy = add_noise(batch["latents"], seen, timesteps, alphas)
        wanted = target(self.prediction_type, batch["latents"], noise, timesteps, alphas)
        threshold = None
        if LOSSES[objective.loss_type].has_threshold:
            schedule, huber_c = objective.huber_schedule, objective.huber_c
            threshold = huber_thresholds(schedule, huber_c, timesteps, alphas)
        prediction = self.predict(noisy, timesteps, batch["input_ids"], batch["token_weights"])
        losses = elementwise_loss(prediction, wanted, objective.loss_type, threshold)
        return image_means(losses, batch["masks"])

    def image_weights(self, batch: Batch) -> Tensor:
        """How much each image's loss counts, by its timestep and by its kind, (B,)."""
        objective = self.config.objective
        snr = signal_to_noise(self.alphas_cumprod[batch["timesteps"]])
        if objective.debiased_estimation:
            weights = debiased_weights(snr, self.prediction_type)
        else:
            weights = min_snr_weights(snr, objective.min_snr_gamma, self.prediction_type)
        return weights * batch["loss_weights"]

    def on_fit_start(self) -> None:
        """Ask the stack for the base where the run is: Lightning moves this module alone."""
        if self.stacked is not None:
            self.stacked.prepare(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The mean weighted loss of a batch, or the batch's share of the mean over its step.

        Lightning divides by the number of batches in a full step. An image counts as much in a
        step with fewer batches or with batches of unlike sizes as it would in one large batch.
        """
        self.network.dropout.begin(batch["step"], batch["keys"])
        weighted = self.image_losses(batch) * self.image_weights(batch)  # (B,)
        self.losses.append(weighted.detach())
        accumulate = self.config.trainer.accumulate_grad_batches
        if accumulate == 1:
            return weighted.mean()
        return weighted.sum() * (accumulate / batch["step_images"])

    def backward(self, loss: Tensor, *arguments: Any, **named: Any) -> None:
        """Compute the gradients; the arguments are Lightning's."""
        if self.stacked is not None:
            self.stacked.backward(loss)
        else:
            super().backward(loss, *arguments, **named)

    def on_after_backward(self) -> None:
        """Dropout belongs to training alone; what is measured in between sees all of it."""
        self.network.dropout.end()

    def validation_step(self, batch: Probe, batch_idx: int) -> Tensor:
        """The unweighted loss of each of a probe's images at each of its timesteps, (U,)."""
        latents = batch.latents.to(self.device)
        weights = None if batch.token_weights is None else batch.token_weights.to(self.device)
        hidden = self.captions(self.text_encoder, batch.input_ids.to(self.device), weights)
        losses = []
        for tensors in batch.passes():
            rows, timesteps, noise = (tensor.to(self.device) for tensor in tensors)
            clean = latents[rows]
            noisy = add_noise(clean, noise, timesteps, self.alphas_cumprod)
            wanted = target(self.prediction_type, clean, noise, timesteps, self.alphas_cumprod)
            losses.append(squared_error(self.denoise(noisy, timesteps, hidden[rows]), wanted))
        return torch.cat(losses)

    def configure_optimizers(self) -> Any:
        """The optimizer, over flat tensors where it may be, and its schedule."""
        parts = self.network.trainable(self.config.model.clip_skip)
        if self.config.trainer.lora_precision == "bf16":
            for tensor in (tensor for tensors in parts.values() for tensor in tensors):
                tensor.data = tensor.data.bfloat16()
        flat = entry_of(self.config.optimizer).flat
        self.trained = {
            name: [flatten(tensors)] if flat else tensors
            for name, tensors in parts.items()
            if tensors
        }
        optimizer = build_optimizer(
            self.trained,
            self.config.optimizer,
            fused=self.config.trainer.precision != "16-mixed",  # clipping needs them unscaled
        )
        schedule = build_schedule(optimizer, self.config.schedule, self.total_steps)
        leave_out_steps(optimizer)
        self.optimizer = optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of all gradients together.

        Lightning's own clipping refuses a fused optimizer in every mixed precision, although only
        fp16 scales gradients. Here they are never scaled: fp16 gets no fused optimizer.

        Args:
            optimizer: Whose gradients; it steps over ``trained``.
            gradient_clip_val: The largest norm; None is off.
            gradient_clip_algorithm: Lightning's name of the method, which is always the norm.
        """
        if gradient_clip_val:
            tensors = [tensor for tensors in self.trained.values() for tensor in tensors]
            clip_grad_norm_(tensors, gradient_clip_val)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear gradients in place: the layers' gradients may be views of flat ones.

        Args:
            set_to_none: Not honoured, because a gradient of None would end the view; Lightning
                asks for it before the first step.
        """
        for tensor in (tensor for tensors in self.trained.values() for tensor in tensors):
            if tensor.grad is not None:
                tensor.grad.zero_()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Clear gradients before each step."""
        self.zero_grad()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the LoRA's tensors alone; the base is read from its own file.

        Their names are those of the LoRA file, so that a run in a stack and one alone resume each
        other's checkpoints.
        """
        checkpoint["state_dict"] = self.network.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the LoRA's tensors; nothing is left for Lightning to load."""
        self.network.load_state(checkpoint["state_dict"])
        checkpoint["state_dict"] = {}

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Begin a new record; Lightning calls this after all callbacks."""
        if batch["ends_step"]:
            self.record.clear()
            self.losses.clear()
