"""Tables of what kohya's trainer calls a choice, takes for a default, or has without effect."""

from lora_lab.config.optimizer import TABLE as OPTIMIZERS
from lora_lab.config.sampler import SAMPLERS as OURS

DEFAULTS: dict[str, object] = {
    "clip_skip": 1,
    "prior_loss_weight": 1.0,
    "masked_loss": False,
    "enable_bucket": False,
    "bucket_reso_steps": 64,
    "min_bucket_reso": 256,
    "max_bucket_reso": 1024,
    "bucket_no_upscale": False,
    "random_crop": False,
    "color_aug": False,
    "train_batch_size": 1,
    "caption_extension": ".caption",
    "flip_aug": False,
    "shuffle_caption": False,
    "keep_tokens": 0,
    "caption_dropout_rate": 0,
    "caption_dropout_every_n_epochs": 0,
    "caption_tag_dropout_rate": 0,
    "weighted_captions": False,
    "max_token_length": 75,
    "network_dim": 4,
    "network_alpha": 1,
    "network_dropout": 0,
    "dim_from_weights": False,
    "lr_scheduler_power": 1,
    "lr_scheduler_num_cycles": 1,
    "noise_offset": 0,
    "noise_offset_random_strength": False,
    "multires_noise_iterations": 0,
    "multires_noise_discount": 0.3,
    "ip_noise_gamma": 0,
    "min_snr_gamma": 0,
    "debiased_estimation_loss": False,
    "zero_terminal_snr": False,
    "loss_type": "l2",
    "huber_schedule": "snr",
    "huber_c": 0.1,
    "min_timestep": 0,
    "max_timestep": 1000,
    "gradient_checkpointing": False,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 1.0,
    "num_cpu_threads_per_process": 2,
    "save_state": False,
}
"""What kohya takes for a plain setting that isn't given; without an entry ours stays."""

SCHEDULES = {
    "cosine": "cosine",
    "constant": "constant",
    "constant_with_warmup": "constant",
    "linear": "linear",
    "cosine_with_restarts": "cosine_with_restarts",
    "polynomial": "polynomial",
    "inverse_sqrt": "inverse_sqrt",
}
"""kohya's name of a schedule -> ours."""

PRECISIONS = {
    "no": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "full_bf16": "bf16-true",
}
"""mixed_precision -> trainer.precision."""

SAMPLERS = {kohya: name for name, entry in OURS.items() for kohya in entry.kohya}
"""sample_sampler -> sampling.sampler."""

OPTIMIZER_DEFAULTS = {name: dict(entry.defaults) for name, entry in OPTIMIZERS.items()}
"""What an optimizer's library takes for an argument that isn't given."""
PREPRINT = "dadaptation.experimental.DAdaptAdamPreprint"
"""What sd-scripts takes for the optimizer types DAdaptation and DAdaptAdamPreprint."""
OPTIMIZER_TYPES = {name: entry.kohya for name, entry in OPTIMIZERS.items()}
"""Our name of an optimizer -> kohya's."""

WITHOUT_EFFECT: dict[str, str] = {
    "cache_latents": "latents are always cached",
    "cache_latents_to_disk": "where latents are cached doesn't change a LoRA; see data.cache_dir",
    "vae_batch_size": "images are encoded one by one, once",
    "max_data_loader_n_workers": "one process loads the data, so that a run can be repeated",
    "persistent_data_loader_workers": "one process loads the data, so that a run can be repeated",
    "xformers": "how attention is computed doesn't change what is computed",
    "mem_eff_attn": "how attention is computed doesn't change what is computed",
    "sdpa": "how attention is computed doesn't change what is computed",
    "lowram": "a matter of memory",
    "highvram": "a matter of memory",
    "no_half_vae": "the VAE encodes in 32 bits here, unless data.vae_precision says otherwise",
    "save_precision": "LoRA files keep 32 bits, which hold every value of 16",
    "save_last_n_steps": "all saves are kept",
    "save_last_n_steps_state": "all saves are kept",
    "save_last_n_epochs": "all saves are kept",
    "save_last_n_epochs_state": "all saves are kept",
    "output_dir": "a place; give hydra.run.dir",
    "logging_dir": "a place; logs lie in the run folder",
    "log_prefix": "a place; logs lie in the run folder",
    "training_comment": "text for readers",
    "wandb_api_key": "keys come from `wandb login`, never from a config",
    "sample_every_n_steps": "grids are drawn from saved LoRAs",
    "sample_every_n_epochs": "grids are drawn from saved LoRAs",
    "sample_at_first": "grids are drawn from saved LoRAs",
    "no_metadata": "a LoRA file always tells how it was made",
    "full_fp16": "told by trainer.precision",
    "full_bf16": "told by trainer.precision",
    "console_log_simple": "a matter of the terminal",
}
"""kohya's settings that don't change a LoRA, or not with what is beside them."""

OFF: dict[str, object] = {
    "adaptive_noise_scale": 0,
    "huber_scale": 1,
    "ip_noise_gamma_random_strength": False,
    "fp8_base": False,
    "fp8_base_unet": False,
    "alpha_mask": False,
    "validation_split": 0,
    "block_alphas": "",
    "block_dims": "",
    "block_lr_zero_threshold": "",
    "down_lr_weight": "",
    "mid_lr_weight": "",
    "up_lr_weight": "",
    "face_crop_aug_range": "",
    "lr_scheduler_args": "",
    "max_train_steps": "",
    "no_token_padding": False,
    "resume": "",
    "save_every_n_steps": 0,
    "save_model_as": "safetensors",
    "scale_v_pred_loss_like_noise_pred": False,
    "scale_weight_norms": 0,
    "sdxl": False,
    "stop_text_encoder_training": 0,
    "v2": False,
    "v_pred_like_loss": 0,
}
"""Settings that can only be taken over at this value, at which they do nothing."""
