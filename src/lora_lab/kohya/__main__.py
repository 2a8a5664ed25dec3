"""Comes from kohya's trainer and goes back: python -m lora_lab.kohya import|export <file>."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from lora_lab.config import to_config
from lora_lab.config.literals import literals
from lora_lab.errors import ConfigError, LabError, one_line
from lora_lab.files import make_folder, read_yaml, write_text
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.experiment import command_of, experiment_name, experiment_text, summary
from lora_lab.kohya.export import flatten, to_arguments, toml_text
from lora_lab.kohya.translation import translate


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Returns:
        0, 1 when a file can't be written, 2 for a wrong argument or file.
    """
    parser = argparse.ArgumentParser(
        prog="python -m lora_lab.kohya", description="Comes from kohya's trainer, or goes back."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    to_ours = commands.add_parser("import", help="settings of kohya's trainer as a config of ours")
    to_ours.add_argument("file", type=Path, help="kohya_ss .json, sd-scripts .toml, or a LoRA")
    to_ours.add_argument(
        "--out", type=Path, help="<folder>/experiment/<name>.yaml; experiment/<file's name>.yaml"
    )
    to_kohya = commands.add_parser("export", help="a config of ours as sd-scripts' TOML")
    to_kohya.add_argument("file", type=Path, help="run folder, or its config.yaml")
    to_kohya.add_argument("--out", type=Path, help="the .toml; <output_name>.toml")
    options = parser.parse_args(arguments)
    try:
        told = _import(options) if options.command == "import" else _export(options)
    except LabError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    print(told)
    return 0


def _import(options: argparse.Namespace) -> str:
    found = read_arguments(options.file)
    result = translate(found)
    path = options.out or Path("experiment") / f"{experiment_name(options.file.stem)}.yaml"
    if path.suffix not in (".yaml", ".yml") or path.absolute().parent.name != "experiment":
        raise ConfigError(
            f"--out must be <folder>/experiment/<name>.yaml, which +experiment=<name> finds, "
            f"got {path}"
        )
    command = command_of(result, path)
    make_folder(path.parent)
    write_text(path, experiment_text(result, f"{found.kind}, {options.file.name}", command))
    return f"{summary(result)}\n{path} is written; train with it:\n  {command}"


def _export(options: argparse.Namespace) -> str:
    source = options.file / "config.yaml" if options.file.is_dir() else options.file
    if not source.is_file():
        raise ConfigError(f"{source} is missing: name a run folder or its config.yaml")
    try:
        tree = read_yaml(source)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{source} can't be read ({error})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source} holds no settings; name the config.yaml of a run folder")
    config = to_config(OmegaConf.create(literals(tree)))
    values, unknown = to_arguments(config, flatten(tree))
    path = options.out or Path(f"{config.output_name}.toml")
    if path.suffix != ".toml":
        raise ConfigError(f"--out must end with .toml, got {path}")
    write_text(path, toml_text(values, unknown, options.file.name))
    return f"{path} is written; kohya has nothing for {len(unknown)} settings, named in it"


if __name__ == "__main__":
    sys.exit(main())
