"""Noise and loss: their settings and ranges."""

from dataclasses import dataclass

from lora_lab.config.rules import Rule, above, at_least, between, one_of, or_null, shown

LOSS_TYPES = ("l2", "l1", "huber", "smooth_l1")
"""The names; objective/losses.py has the formulas."""
HUBER_SCHEDULES = ("constant", "exponential", "snr")
SAMPLINGS = ("uniform", "logit_normal")


@dataclass
class ObjectiveConfig:
    """The noise and the loss."""

    noise_offset: float
    """Size of the random offset added to each channel's noise; >= 0, 0 is off."""
    noise_offset_random: bool
    """Draw the size anew for each image, from 0 to noise_offset; true or false."""
    multires_noise_iterations: int
    """Levels of coarser noise added to the noise (pyramid noise); 0 to 16, 0 is off."""
    multires_noise_discount: float
    """How much each coarser level counts, as a factor on the one before; > 0, < 1."""
    ip_noise_gamma: float
    """Noise added to the network's input alone (arXiv 2301.11706); >= 0, 0 is off, 0.1 is usual."""
    min_snr_gamma: float
    """Cap of the signal-to-noise ratio in the loss weights (arXiv 2303.09556); >= 0, 0 is off."""
    debiased_estimation: bool
    """Weight the loss by 1 / sqrt(SNR) (arXiv 2310.08442); true or false."""
    zero_terminal_snr: bool
    """Rescale the noise schedule to end in pure noise (arXiv 2305.08891); true or false."""
    loss_type: str
    """Distance between prediction and target: l2, l1, huber or smooth_l1."""
    huber_schedule: str
    """How huber_c follows the timestep: constant, exponential or snr (arXiv 2403.16728)."""
    huber_c: float
    """Threshold of the Huber losses (huber, smooth_l1), in units of the noise; > 0, <= 1."""
    timestep_sampling: str
    """How timesteps are drawn: uniform, or logit_normal, which favours the middle."""
    logit_mean: float
    """Mean of the logit of logit_normal; above 0 favours noisier timesteps."""
    logit_std: float
    """Standard deviation of the logit of logit_normal; > 0."""
    timestep_stratified: bool
    """Spread the timesteps of a step's images evenly over the range; true or false."""
    min_timestep: int
    """The least noisy timestep that is trained; >= 0."""
    max_timestep: int | None
    """One more than the noisiest timestep that is trained; >= 1; null: all of the checkpoint's."""


RULES = (
    at_least("noise_offset", 0),
    between("multires_noise_iterations", 0, 16),
    Rule("multires_noise_discount", "> 0 and < 1", lambda value: 0 < value < 1),
    at_least("ip_noise_gamma", 0),
    at_least("min_snr_gamma", 0),
    one_of("loss_type", LOSS_TYPES),
    one_of("huber_schedule", HUBER_SCHEDULES),
    Rule("huber_c", "> 0 and <= 1", lambda value: 0 < value <= 1),
    one_of("timestep_sampling", SAMPLINGS),
    Rule("logit_mean", "from -10 to 10", lambda value: -10 <= value <= 10),
    above("logit_std", 0),
    at_least("min_timestep", 0),
    or_null(at_least("max_timestep", 1)),
)


def problems(objective: ObjectiveConfig) -> list[str]:
    """Return one line for each pair of settings that don't go together."""
    found = []
    low, high = objective.min_timestep, objective.max_timestep
    if high is not None and low >= high >= 1:
        found.append(
            f"objective.min_timestep must be < objective.max_timestep={high}, got {shown(low)}"
        )
    if objective.debiased_estimation and objective.min_snr_gamma > 0:
        found.append(
            "objective.debiased_estimation and objective.min_snr_gamma both weight the timesteps "
            f"(min_snr_gamma is {shown(objective.min_snr_gamma)}); set objective.min_snr_gamma=0, "
            "or objective.debiased_estimation=false"
        )
    if objective.noise_offset > 0 and objective.multires_noise_iterations > 0:
        found.append(
            "objective.noise_offset and objective.multires_noise_iterations both add coarse noise; "
            "set one of them to 0"
        )
    return found
