"""The user's own config files: ``conf/`` in the folder that a command is called in."""

from pathlib import Path

from lora_lab.cli.quoting import quote
from lora_lab.errors import ConfigError

SEARCH_PATH = "hydra.searchpath"


def own_conf(conf: Path) -> Path | None:
    """Return the user's own folder of config files; None where there is none beside ours.

    Args:
        conf: The folder that ships with the project.

    Raises:
        ConfigError: A file has the name of one that ships: Hydra would pass it over in silence.
    """
    own = Path.cwd() / "conf"
    if not own.is_dir() or own.resolve() == conf.resolve():
        return None
    for path in sorted(own.rglob("*.yaml")):
        name = path.relative_to(own)
        if (conf / name).exists():
            raise ConfigError(
                f"conf/{name.as_posix()} has the name of a config file that ships with LoRA Lab, "
                "which is read in its place: give it another name"
            )
    return own


def with_search_path(own: Path | None, arguments: list[str]) -> list[str]:
    """Return the arguments with one that shows Hydra the user's folder.

    Args:
        own: The user's folder; None adds nothing.
        arguments: The command line; a search path that it names stays the only one.
    """
    if own is None or any(argument.startswith(f"{SEARCH_PATH}=") for argument in arguments):
        return arguments
    settings = (n for n, text in enumerate(arguments) if "=" in text and not text.startswith("-"))
    place = next(settings, 0)  # Hydra takes overrides only side by side
    return [*arguments[:place], f"{SEARCH_PATH}=[{quote(f'file://{own}')}]", *arguments[place:]]
