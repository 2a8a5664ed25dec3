"""``data_report=true``: looks at the data and trains nothing."""

import sys
from pathlib import Path

from lora_lab.cli.task import in_sweep
from lora_lab.config import TrainConfig
from lora_lab.errors import ConfigError
from lora_lab.files import make_folder


def data_report_command(config: TrainConfig, folder: Path) -> str:
    """Write the data report into a folder and print its short table.

    Args:
        config: Checked settings.
        folder: The run folder.

    Returns:
        What it has left in the folder.

    Raises:
        ConfigError: The command is a sweep.
        LabError: The data or the base checkpoint can't be read, or the folder isn't writable.
    """
    if in_sweep():
        raise ConfigError("data_report must be false in a sweep, got true; leave out -m")
    from lora_lab.checkpoint.base_model import load_base
    from lora_lab.data_report.facts import gather
    from lora_lab.data_report.write import table, write_report

    model = config.model
    base = load_base(model.checkpoint, allow_pickle=model.allow_pickle, parts=())
    report = gather(config, base)
    write_report(report, make_folder(folder))
    sys.stdout.write(table(report))
    return "data_report.html, its .json and contact_sheet.png"
