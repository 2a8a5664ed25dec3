"""May two runs be compared? Only if nothing differs but the parameter under study.

A latent cache that silently differs moves the loss by more than most settings do, so inputs are
compared by their fingerprints before any figure is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_lab.run_folder.identity import WITHOUT_INFLUENCE
from lora_lab.study.read.load import Run

FINGERPRINTS = ("images", "captions", "checkpoint", "vae", "latents", "held_out_latents")
_ENCODED = frozenset({"latents", "held_out_latents"})
_DATA = frozenset({"images", "captions"}) | _ENCODED
_MODEL = frozenset({"checkpoint", "vae"}) | _ENCODED

CHANGED_BY: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("model", "model.checkpoint", "model.merge"), _MODEL),
    **dict.fromkeys(("data", "data.dir", "data.held_out_dir"), _DATA),
    **dict.fromkeys(
        ("data.regularization", "data.reg_dir"), frozenset({"images", "captions", "latents"})
    ),
    "data.masked_loss": frozenset({"images"}),
    **dict.fromkeys(
        ("data.repeats", "data.caption_extension", "data.caption_lines", "data.trigger"),
        frozenset({"captions"}),
    ),
    **dict.fromkeys(
        (
            *("data.resolution", "data.enable_bucket", "data.bucket_reso_steps"),
            *("data.min_bucket_reso", "data.max_bucket_reso", "data.bucket_no_upscale"),
            *("data.resize_filter", "data.vae_precision"),
            *("trainer", "trainer.precision", "trainer.threads", "trainer.accelerator"),
        ),
        _ENCODED,
    ),
    **dict.fromkeys(
        ("data.flip", "data.random_crop", "data.color_aug", "data.variants"),
        frozenset({"latents"}),
    ),
}
"""Key under study -> fingerprints that it may change by itself."""

LOSS_INPUTS = frozenset({"checkpoint", "held_out_latents"})
"""With one of these different, a held-out loss is not the same quantity any more."""
EARLIER_LOSS_INPUTS = frozenset({"images", "checkpoint", "vae", "latents"})
"""The same for runs whose latents have one fingerprint, training and held-out together."""
TRAINING_INPUTS = frozenset({"images", "checkpoint", "vae", "latents"})
"""With one of these different, a training loss is not."""

# Settings that may differ between the runs of a sweep: those that have no influence on a LoRA, and
# those that change a run without touching what is measured.
NEUTRAL = (
    *WITHOUT_INFLUENCE,
    *("seed", "output_name", "save_every", "callbacks", "trainer.threads", "hydra"),
)


@dataclass(frozen=True)
class Comparability:
    """Whether a run can be ranked against the base."""

    obstacles: tuple[str, ...] = ()
    """What differs although it isn't under study; empty when the run can be ranked."""
    loss_changed: str = ""
    """Why held-out losses are of different quantities although all is as intended; else empty."""
    training_changed: bool = False
    """Whether training losses are of different quantities, so that they can't be paired."""

    @property
    def ranked(self) -> bool:
        """Whether a verdict on the loss means anything."""
        return not self.obstacles and not self.loss_changed


def parameters_of(parameter: str) -> tuple[str, ...]:
    """The keys under study: one, or several separated by commas; a + in front is Hydra's."""
    return tuple(part.strip().lstrip("+") for part in parameter.split(",") if part.strip())


def compare(run: Run, base: Run, parameters: tuple[str, ...]) -> Comparability:
    """Compare what two runs were trained on and with.

    Args:
        run: The run to judge.
        base: The base run that it would be ranked against.
        parameters: Keys under study.
    """
    allowed = frozenset().union(*(CHANGED_BY.get(key, frozenset()) for key in parameters))
    differing = _differing_fingerprints(run, base)
    unexpected = [name for name in differing if name not in allowed]
    obstacles = [differing[name] for name in unexpected]
    obstacles += _differing_settings(run, base, parameters)
    known = run.record.fingerprints.keys() & base.record.fingerprints.keys()
    inputs = LOSS_INPUTS if "held_out_latents" in known else EARLIER_LOSS_INPUTS
    expected = [
        name.replace("held_out_", "held-out ")
        for name in differing
        if name in allowed and name in inputs
    ]
    changed = ""
    if expected:
        changed = (
            f"{', '.join(parameters)} changes the {_and(expected)} that the loss is measured on"
        )
    elif _measured_otherwise(run, base):
        changed = "its held-out loss was measured at other timesteps than the base's"
    training_changed = not TRAINING_INPUTS.isdisjoint(differing)
    return Comparability(tuple(obstacles), changed, training_changed)


def _measured_otherwise(run: Run, base: Run) -> bool:
    """Whether no held-out image that both measured at the end was measured at the same timesteps.

    Rows that one of them lacks are no other way to measure; they are left out of both.
    """
    own, theirs = (_timesteps(one) for one in (run, base))
    shared = own.keys() & theirs.keys()
    return bool(shared) and all(own[image] != theirs[image] for image in shared)


def _timesteps(run: Run) -> dict[str, set[str]]:
    """Held-out image -> the timesteps at which it was measured at the end."""
    found: dict[str, set[str]] = {}
    for image, timestep in run.image_losses.units:
        found.setdefault(image, set()).add(timestep)
    return found


def changes_training_loss(parameters: tuple[str, ...]) -> bool:
    """Whether the training loss itself is defined by a key under study (objective.…)."""
    return any(_covers("objective", key) for key in parameters)


def _differing_fingerprints(run: Run, base: Run) -> dict[str, str]:
    """Fingerprint -> one sentence on how it differs."""
    own, theirs = run.record.fingerprints, base.record.fingerprints
    if not own or not theirs:
        silent = run.name if not own else base.name
        return {"": f"{silent} records no fingerprints, so its inputs are unknown"}
    sentences = {}
    for name in (*FINGERPRINTS, *sorted((own.keys() | theirs.keys()) - set(FINGERPRINTS))):
        if name in own and name in theirs and own[name] != theirs[name]:
            sentences[name] = (
                f"other {name} ({own[name][:12]}) than {base.name} ({theirs[name][:12]})"
            )
        elif (name in own) != (name in theirs):
            silent = run.name if name not in own else base.name
            sentences[name] = f"{silent} records no fingerprint of the {name}"
    return sentences


def _differing_settings(run: Run, base: Run, parameters: tuple[str, ...]) -> list[str]:
    """Settings that differ though they are not under study, one sentence for all."""
    if not run.config or not base.config:
        return []
    ignored = (*NEUTRAL, *parameters)
    differing = [
        f"{key}={run.config.get(key, 'not set')} instead of {base.config.get(key, 'not set')}"
        for key in sorted(run.config.keys() | base.config.keys())
        if run.config.get(key) != base.config.get(key)
        and not any(_covers(prefix, key) for prefix in ignored)
    ]
    if not differing:
        return []
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return [f"other settings too: {', '.join(differing[:3])}{more}"]


def _covers(prefix: str, key: str) -> bool:
    return key == prefix or key.startswith(prefix + ".")


def _and(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
