"""Comes from kohya's trainer and goes back: python -m lora_lab.kohya import|export <file>."""

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import safe_open

from lora_lab.checkpoint.embedded import PREFIX, locate
from lora_lab.cli.ending import DEBUG, OneLineParser, path_of, run_plain, tell
from lora_lab.config import TrainConfig, check, to_config
from lora_lab.config.convert import without_hydra
from lora_lab.config.literals import literals
from lora_lab.config.store import register_schemas
from lora_lab.errors import ConfigError, LabError
from lora_lab.files import make_folder, read_yaml, write_text
from lora_lab.kohya.arguments import read_arguments
from lora_lab.kohya.experiment import (
    command_of,
    experiment_name,
    experiment_text,
    record,
    summary,
)
from lora_lab.kohya.translation import translate
from lora_lab.kohya.write_toml import Places, flatten, to_arguments, toml_text

CONF = Path(__file__).parents[1] / "conf"
"""The base config."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        0, 1 when a file can't be written, 2 for a wrong argument or file.
    """
    parser = OneLineParser(
        prog="python -m lora_lab.kohya", description="Comes from kohya's trainer, or goes back."
    )
    parser.add_argument(DEBUG, action="store_true", help="show where an unforeseen error arose")
    commands = parser.add_subparsers(dest="command", required=True)
    to_ours = commands.add_parser("import", help="settings of kohya's trainer as a config of ours")
    to_ours.add_argument("file", type=path_of, help="kohya_ss .json, sd-scripts .toml, or a LoRA")
    to_ours.add_argument(
        "--out",
        type=path_of,
        help="<folder>/experiment/<name>.yaml; experiment/<file's name>.yaml",
    )
    to_kohya = commands.add_parser("export", help="a config of ours as sd-scripts' TOML")
    to_kohya.add_argument("file", type=path_of, help="run folder, or its config.yaml")
    to_kohya.add_argument("--out", type=path_of, help="the .toml; <output_name>.toml")
    options = parser.parse_args(arguments)
    try:
        told = _import(options) if options.command == "import" else _export(options)
    except LabError as error:
        tell([str(error)])
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
    told = path.with_name(f"{path.stem}.import.txt")
    write_text(told, record(result))
    head = summary(result, refused(path, result.to_give))
    return "\n".join(
        [
            *([head] if head else []),
            f"{path} is written; train with it:",
            f"  {command}",
            f"{len(result.taken)} settings are taken over, {len(result.ignored)} have no effect: "
            f"{told}",
        ]
    )


def refused(path: Path, to_give: Collection[str]) -> list[str]:
    """What training would refuse of an imported file; nothing where the base config isn't at hand.

    Args:
        path: `<folder>/experiment/<name>.yaml`.
        to_give: Our keys that come with the command; anything stands in for them.
    """
    if not (CONF / "train.yaml").is_file():
        return []
    register_schemas()
    GlobalHydra.instance().clear()
    given = [f"{key}=1" for key in to_give]
    searched = f"hydra.searchpath=['file://{path.absolute().parent.parent}']"
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            composed = compose(
                "train", [searched, f"+experiment={path.stem}", *given], return_hydra_config=True
            )
        check(to_config(without_hydra(composed)))
    except ConfigError as error:
        return str(error).splitlines()
    except (HydraException, OmegaConfBaseException) as error:
        return [" ".join(str(error).split())]
    finally:
        GlobalHydra.instance().clear()
    return []


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
    values, unsaid = to_arguments(config, flatten(tree), _places(config, source.parent))
    path = options.out or Path(f"{config.output_name}.toml")
    if path.suffix != ".toml":
        raise ConfigError(f"--out must end with .toml, got {path}")
    write_text(path, toml_text(values, unsaid, options.file.name))
    lines = [f"{path} is written"]
    if unsaid:
        lines.append(f"sd-scripts can't be told, and does otherwise ({len(unsaid)}):")
        lines += [f"  {key}={why}" for key, why in unsaid.items()]
    return "\n".join(lines)


def _places(config: TrainConfig, run: Path) -> Places:
    """Where the images of a config are, and what the LoRA files of its run tell of the checkpoint.

    The images need not be on this machine.

    Raises:
        LabError: data.dir names an embedded data set that isn't there.
    """
    embedded = config.data.dir.startswith(PREFIX)
    root = locate(config.data.dir) if embedded else Path(config.data.dir).expanduser()
    train = root / "train" if (root / "train").is_dir() or not root.is_dir() else root
    reg = Path(config.data.reg_dir) if config.data.reg_dir is not None else root / "reg"
    used = config.data.regularization and (config.data.reg_dir is not None or reg.is_dir())
    predicted = None
    for file in sorted((run / "lora").glob("*.safetensors"))[:1]:
        with safe_open(file, framework="numpy") as opened:
            kind = (opened.metadata() or {}).get("modelspec.prediction_type")
        predicted = {"v": "v_prediction", "epsilon": "epsilon"}.get(str(kind))
    return Places(str(train), str(reg) if used else None, predicted)


if __name__ == "__main__":
    sys.exit(run_plain(main))
