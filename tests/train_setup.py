"""A small training config for tests, built without Hydra."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_lab.config import (
    AxesConfig,
    CallbacksConfig,
    DataConfig,
    LoggerConfig,
    MetricsConfig,
    ModelConfig,
    NetworkConfig,
    ObjectiveConfig,
    OptimizerConfig,
    PictureConfig,
    PromptsConfig,
    SamplingConfig,
    ScheduleConfig,
    StudyConfig,
    TrainConfig,
    TrainerConfig,
    WandbConfig,
)

OPTIMIZER = OptimizerConfig(
    name="dadapt_adam",
    _target_=None,
    lr=1.0,
    betas=[0.9, 0.99],
    eps=1e-8,
    weight_decay=0.6,
    decouple=True,
    use_bias_correction=True,
    growth_rate=1.02,
    d0=1e-6,
    momentum=None,
    d_coef=None,
    safeguard_warmup=None,
    args={},
    text_encoder_lr=1.0,
)
"""The guide's."""

NETWORK = NetworkConfig(
    name="lora",
    dim=4,
    alpha=1.0,
    conv_dim=None,
    conv_alpha=None,
    train_unet=True,
    train_text_encoder=True,
    dropout=0.0,
    rank_dropout=0.0,
    module_dropout=0.0,
    rslora=False,
    dora=False,
    factor=-1,
    weights=None,
    dim_from_weights=False,
)
"""A plain LoRA, with nothing else on."""
SCHEDULE = ScheduleConfig(
    name="cosine", warmup_steps=0, warmup_share=0.0, power=1.0, cycles=1, timescale=None
)
OBJECTIVE = ObjectiveConfig(
    noise_offset=0.0,
    noise_offset_random=False,
    multires_noise_iterations=0,
    multires_noise_discount=0.3,
    ip_noise_gamma=0.0,
    min_snr_gamma=5.0,
    debiased_estimation=False,
    zero_terminal_snr=False,
    loss_type="l2",
    huber_schedule="snr",
    huber_c=0.1,
    timestep_sampling="uniform",
    logit_mean=0.0,
    logit_std=1.0,
    timestep_stratified=False,
    min_timestep=0,
    max_timestep=None,
)
TRAINER = TrainerConfig(
    precision="32-true",
    lora_precision="32",
    matmul_precision="highest",
    accelerator="cpu",
    devices=1,
    accumulate_grad_batches=1,
    gradient_clip_val=1.0,
    gradient_checkpointing=False,
    attention="sdpa",
    compile=False,
    max_skipped_steps=0,
    threads=1,
)

SAMPLING = SamplingConfig(
    checkpoints=[],
    subject="zqx person",
    prompts=PromptsConfig("a", "b", {}, []),
    negative="",
    lora_dir=None,
    wildcards_dir=None,
    embeddings=[],
    seed=1,
    random_seeds=[],
    sampler="Euler",
    steps=1,
    guidance=1.0,
    width=32,
    height=32,
    batch_size=1,
    lora_weight=1.0,
    clip_skip=1,
    device="cpu",
    grids=[],
    train_seeds=1,
    axes=AxesConfig([1.0], [1], ["Euler"], [1.0]),
    picture=PictureConfig(2400, 6000, None, ["png"]),
    allow_pickle=False,
    prediction_type=None,
    merge=[],
)

METRICS = MetricsConfig(
    enabled=False,
    required=False,
    clip="embedded:pocket-clip",
    dino=None,
    face=None,
    prompts=[f"{{subject}} {word}" for word in ("one", "two", "three", "four", "five")],
    seeds=[1, 2],
    plain_prompts=["one", "two", "three", "four", "five"],
    plain_seeds=[3],
    choice_prompts=["{subject} six"],
    choice_weights=[0.5, 1.0],
    steps=2,
    draw_batch_size=10,
)
"""Images of two steps."""


def data_config(folder: Path, **changes: Any) -> DataConfig:
    """The tiny person at 32 px, 12 showings an epoch, 3 batches."""
    config = DataConfig(
        dir=str(folder),
        held_out_dir=None,
        regularization=True,
        reg_dir=None,
        prior_loss_weight=1.0,
        masked_loss=False,
        resolution=32,
        enable_bucket=True,
        bucket_reso_steps=None,
        min_bucket_reso=None,
        max_bucket_reso=None,
        bucket_no_upscale=False,
        resize_filter="area",
        random_crop=False,
        color_aug=False,
        variants=1,
        repeats=None,
        batch_size=4,
        caption_lines="all",
        caption_extension=".txt",
        trigger=None,
        flip=False,
        shuffle_caption=False,
        keep_tokens=0,
        caption_dropout_rate=0.0,
        caption_dropout_every_n_epochs=0,
        caption_tag_dropout_rate=0.0,
        weighted_captions=False,
        restore_mean=True,
        max_token_length=75,
        latents="mean",
        vae_precision="float32",
        cache_dir=None,
    )
    return replace(config, **changes)


def train_config(base: Path, folder: Path, **changes: Any) -> TrainConfig:
    """Two epochs of the tiny person on the tiny base, with the guide's optimizer.

    Args:
        base: The base checkpoint.
        folder: The data folder.
        changes: Values by key, with ``__`` for the dot: ``network__dim=8``.
    """
    config = TrainConfig(
        model=ModelConfig(
            "tiny", str(base), clip_skip=2, allow_pickle=False, prediction_type=None, merge=[]
        ),
        data=data_config(folder),
        network=NETWORK,
        optimizer=OPTIMIZER,
        schedule=SCHEDULE,
        objective=OBJECTIVE,
        trainer=TRAINER,
        callbacks=CallbacksConfig(True, keep_last_checkpoint=False, samples=False, progress=False),
        logger=LoggerConfig(True, False, WandbConfig(False, "test", None, True, "offline")),
        sampling=SAMPLING,
        metrics=METRICS,
        study=StudyConfig(
            seeds=2, max_seeds=None, margin=0.02, several_parameters=False, reuse_from=None
        ),
        epochs=2,
        save_every=0.5,
        seed=1234,
        output_name="lora",
        resume=True,
        overwrite=False,
        data_report=False,
        debug=False,
    )
    for key, value in changes.items():
        section, _, name = key.partition("__")
        new = replace(getattr(config, section), **{name: value}) if name else value
        config = replace(config, **{section: new})
    return config
