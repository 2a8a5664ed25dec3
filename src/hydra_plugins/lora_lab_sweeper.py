"""Hands the sweep to Hydra, which takes plugins from the package ``hydra_plugins`` only."""

from lora_lab.cli.sweeper import ParameterSweeper


class LabSweeper(ParameterSweeper):
    """The sweep under the name that ``conf/hydra/sweeper/lab.yaml`` gives."""
