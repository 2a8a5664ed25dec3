"""The settings of a training run: types, and below each field the line that ``--help`` prints."""

from dataclasses import dataclass

from lora_lab.config.sample import SamplingConfig


@dataclass
class ModelConfig:
    """The base checkpoint that the LoRA is trained on."""

    name: str
    """Name of the base model, written into the LoRA's metadata."""
    checkpoint: str
    """Base checkpoint: single file (.safetensors), diffusers folder, or embedded:pocket."""
    clip_skip: int
    """Which hidden state of the text encoder is used, counted from its end; >= 1, 1 is the last."""
    allow_pickle: bool
    """Also read pickle checkpoints (.ckpt, .pt, .bin), with weights_only=True; true or false."""


@dataclass
class DataConfig:
    """Images and captions, in kohya's folder layout."""

    dir: str
    """Folder with train/<repeats>_<trigger> <class>/ images and captions, or embedded:person."""
    held_out_dir: str | None
    """Folder with held-out images in the same layout; null: <dir>/held_out if there is one."""
    resolution: int
    """Side of the training images in pixels; >= 8, a multiple of the VAE's factor."""
    repeats: int | None
    """How often an epoch shows each image; >= 1; null: the number in the folder's name."""
    batch_size: int
    """Images in a training step; >= 1."""
    caption_extension: str
    """File extension of the captions, with its dot, such as .txt."""
    flip: bool
    """Mirror images at random, half of the time; true or false."""
    shuffle_caption: bool
    """Shuffle the comma-separated parts of a caption each time; true or false."""
    keep_tokens: int
    """How many parts at the start of a caption stay in place when it is shuffled; >= 0."""
    cache_dir: str | None
    """Folder that keeps latents for later runs; null: latents stay in memory."""


@dataclass
class NetworkConfig:
    """The LoRA."""

    dim: int
    """Rank of the LoRA matrices; >= 1."""
    alpha: float
    """The LoRA's weight is alpha / dim; > 0."""
    train_unet: bool
    """Train the linear layers of the UNet; true or false."""
    train_text_encoder: bool
    """Train the linear layers of the text encoder; true or false."""


@dataclass
class OptimizerConfig:
    """The optimizer and its own rate."""

    name: str
    """Optimizer: dadapt_adam, prodigy or adamw; chosen by optimizer=<name>."""
    lr: float
    """Learning rate, a factor on d for dadapt_adam and prodigy; >= 0."""
    betas: list[float]
    """Decay rates of Adam's two running means; two numbers, each >= 0 and < 1."""
    eps: float
    """Added to Adam's denominator; > 0."""
    weight_decay: float
    """Weight decay per step, a factor on the learning rate; >= 0."""
    decouple: bool
    """Decay weights as AdamW does instead of through the gradient; true or false."""
    use_bias_correction: bool
    """Correct Adam's running means for their start at zero; true or false."""
    growth_rate: float | None
    """Most that d may grow by in a step, a factor; > 1; null: unlimited, or no d (adamw)."""
    d0: float | None
    """First estimate of d, which only grows; > 0; null: the optimizer has no d (adamw)."""
    text_encoder_lr: float
    """Learning rate of the text encoder as a factor on lr; >= 0."""


@dataclass
class ScheduleConfig:
    """How the learning rate changes over the run."""

    name: str
    """Schedule: cosine, constant, linear or polynomial; chosen by schedule=<name>."""
    warmup_steps: int
    """Steps in which the learning rate rises from 0; >= 0."""
    power: float
    """Exponent of the polynomial schedule; > 0; 1 is linear."""


@dataclass
class ObjectiveConfig:
    """The noise and the loss."""

    noise_offset: float
    """Size of the random offset added to each channel's noise; >= 0, 0 is off."""
    min_snr_gamma: float
    """Cap of the signal-to-noise ratio in the loss weights (arXiv 2303.09556); >= 0, 0 is off."""


@dataclass
class TrainerConfig:
    """Hardware and the loop."""

    precision: str
    """Arithmetic of the base model: 32-true or bf16-mixed; LoRA weights are always 32 bits."""
    accelerator: str
    """Hardware: auto, cpu, gpu or mps."""
    devices: int
    """How many devices train together; >= 1."""
    accumulate_grad_batches: int
    """Batches whose gradients are added up before a step; >= 1."""
    gradient_clip_val: float
    """Largest norm of all gradients together; >= 0, 0 is off."""
    threads: int
    """CPU threads of PyTorch; >= 0, 0 leaves PyTorch's own choice."""


@dataclass
class CallbacksConfig:
    """What is done beside training."""

    held_out_loss: bool
    """Measure the loss on held-out images at every save; true or false."""
    keep_last_checkpoint: bool
    """Keep last.ckpt, which resuming needs, after the run is complete; true or false."""
    progress: bool
    """Show a progress bar with DLR, loss and time left; true or false."""


@dataclass
class WandbConfig:
    """Weights & Biases; the key comes from `wandb login`, never from here."""

    enabled: bool
    """Log to Weights & Biases; chosen by logger=wandb; true or false."""
    project: str
    """Project that the runs belong to."""
    group: str | None
    """Group that the run belongs to; null: the name of the sweep's folder, none without a sweep."""
    mode: str
    """auto (online when logged in, else offline), online or offline."""


@dataclass
class LoggerConfig:
    """Where figures are logged; metrics.csv is always written."""

    csv: bool
    """Write metrics.csv; always true."""
    tensorboard: bool
    """Write TensorBoard's event files; chosen by logger=tensorboard; true or false."""
    wandb: WandbConfig
    """Weights & Biases."""


@dataclass
class StudyConfig:
    """The sweep and its comparison."""

    base_runs: int
    """Runs of the base with seeds seed, seed + 1, ..., which measure the noise floor; >= 2."""
    several_parameters: bool
    """Allow a sweep over the combinations of several parameters; true or false."""
    reuse_from: str | None
    """Folder whose complete runs the sweeps inside it share when all equals; null: no sharing."""


@dataclass
class TrainConfig:
    """A training run."""

    model: ModelConfig
    """The base checkpoint that the LoRA is trained on."""
    data: DataConfig
    """Images and captions, in kohya's folder layout."""
    network: NetworkConfig
    """The LoRA."""
    optimizer: OptimizerConfig
    """The optimizer and its own rate."""
    schedule: ScheduleConfig
    """How the learning rate changes over the run."""
    objective: ObjectiveConfig
    """The noise and the loss."""
    trainer: TrainerConfig
    """Hardware and the loop."""
    callbacks: CallbacksConfig
    """What is done beside training."""
    logger: LoggerConfig
    """Where figures are logged; metrics.csv is always written."""
    sampling: SamplingConfig
    """The images that compare the LoRAs of a sweep."""
    study: StudyConfig
    """The sweep and its comparison."""
    epochs: int
    """Passes over all images times their repeats; >= 1."""
    save_every: float
    """Share of the run after which a LoRA is saved; > 0, <= 1."""
    seed: int
    """Seed of the weights, the noise and the order of the images; 0 to 2^31 - 1."""
    output_name: str
    """File name of the LoRA, without its extension; letters, digits, space, dot, _ and -."""
    resume: bool
    """Go on with an interrupted run found in the run folder; true or false."""
    debug: bool
    """Show tracebacks of errors; true or false."""
