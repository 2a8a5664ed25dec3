"""What the UNet is trained to predict.

Shapes: B images a batch, C latent channels, h and w latent sides, T training timesteps.
"""

from torch import Tensor

from lora_lab.errors import LabError
from lora_lab.objective.noise import per_image


def target(
    prediction_type: str, latents: Tensor, noise: Tensor, timesteps: Tensor, alphas_cumprod: Tensor
) -> Tensor:
    """What the UNet is to predict, (B, C, h, w).

    ``epsilon``: ε (arXiv 2006.11239, equation 14). ``v_prediction``: sqrt(ᾱ) ε - sqrt(1 - ᾱ) x_0
    (Progressive Distillation, arXiv 2202.00512, appendix D).

    Raises:
        LabError: Another prediction type.
    """
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "v_prediction":
        alpha_bar = per_image(alphas_cumprod, timesteps, latents)  # (B, 1, 1, 1)
        return alpha_bar.sqrt() * noise - (1.0 - alpha_bar).sqrt() * latents
    raise LabError(
        f"the checkpoint's scheduler asks for prediction_type {prediction_type!r}, "
        "training knows epsilon and v_prediction: choose another checkpoint"
    )
