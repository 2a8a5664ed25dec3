"""What the kohya_ss GUI writes beside the settings that an import has something to say about."""

LABELS: dict[str, str] = {
    "adaptive_noise_scale": "Adaptive noise scale",
    "debiased_estimation_loss": "Debiased Estimation loss",
    "dora_wd": "DoRA Weight Decompose",
    "face_crop_aug_range": "Face crop augmentation",
    "flux1_checkbox": "Flux.1",
    "full_bf16": "Full bf16 training (experimental)",
    "full_fp16": "Full fp16 training (experimental)",
    "gradient_accumulation_steps": "Gradient accumulate steps",
    "huber_scale": "Huber scale",
    "ip_noise_gamma_random_strength": "IP noise gamma random strength",
    "lr_scheduler": "LR Scheduler",
    "lr_scheduler_args": "LR scheduler extra arguments",
    "lr_scheduler_type": "LR Scheduler type",
    "lr_warmup_steps": "LR warmup (% of total steps)",
    "max_train_steps": "Max train steps",
    "mixed_precision": "Mixed precision",
    "multires_noise_iterations": "Multires noise iterations",
    "network_args": "LoRA type",
    "network_args: module_dropout": "Module dropout",
    "network_module": "LoRA type",
    "no_token_padding": "No token padding",
    "optimizer_args": "Optimizer extra arguments",
    "optimizer_type": "Optimizer",
    "pretrained_model_name_or_path": "Pretrained model name or path",
    "reg_data_dir": "Regularisation folder",
    "resolution": "Max resolution",
    "resume": "Resume from saved training state",
    "sample_prompts": "Sample prompts",
    "save_every_n_steps": "Save every N steps",
    "save_model_as": "Save trained model as",
    "scale_v_pred_loss_like_noise_pred": "Scale v prediction loss",
    "scale_weight_norms": "Scale weight norms",
    "stop_text_encoder_training": "Stop TE (% of total steps)",
    "train_data_dir": "Image folder",
    "v_pred_like_loss": "V Pred like loss",
    "vae": "VAE",
    "zero_terminal_snr": "Zero terminal SNR",
}
"""Name of sd-scripts' command line -> label in the GUI."""


def labelled(name: str) -> str:
    """A setting's name, with the GUI's label where it has one."""
    return f"{LABELS[name]} ({name})" if name in LABELS else name
