"""Base checkpoints from a model hub, kept in Hugging Face's own cache."""

from pathlib import Path

from lora_lab.checkpoint.families.description import Family
from lora_lab.checkpoint.families.sd15 import SD15
from lora_lab.errors import LabError

SMALL_FILES = ("model_index.json", "scheduler/*", "tokenizer/*", "*/config.json")


def fetch_folder(name: str, family: Family = SD15) -> Path:
    """The diffusers folder of a repository: downloaded, or from the cache.

    Args:
        name: `<owner>/<repository>`.
        family: Whose parts are wanted.

    Raises:
        LabError: It is neither reachable nor in the cache, or holds no safetensors.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        weights = chosen_weights(name, list_repo_files(name), family)
        return Path(snapshot_download(name, allow_patterns=[*SMALL_FILES, *weights]))
    except LabError:
        raise
    except Exception as error:  # of whatever library the hub's client speaks to the network with
        problem = error
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        reason = next(iter(str(problem).splitlines()), type(problem).__name__)
        raise LabError(
            f"{name} is no file or folder here, and as the name of a repository it could not be "
            f"downloaded ({reason}): check the name and the network, or name a file or folder"
        ) from None


def chosen_weights(name: str, files: list[str], family: Family = SD15) -> list[str]:
    """The file of weights to load for each part: the plain one, else the fp16 variant.

    Raises:
        LabError: A part has none in safetensors.
    """
    chosen = []
    for part, stem in family.weight_stems.items():
        variants = [f"{part}/{stem}.safetensors", f"{part}/{stem}.fp16.safetensors"]
        there = [file for file in variants if file in files]
        if not there:
            raise LabError(
                f"the repository {name} holds no {variants[0]}: name a diffusers repository of "
                f"{family.name} with safetensors, or a file or folder"
            )
        chosen.append(there[0])
    return chosen
