"""Hands the launcher of stacks to Hydra, which takes plugins from ``hydra_plugins`` only."""

from lora_lab.cli.stacked_launcher import StackLauncher


class StackedLauncher(StackLauncher):
    """The launcher under the name that ``conf/hydra/launcher/stacked.yaml`` gives."""
