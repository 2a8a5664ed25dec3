"""Hands the sweep to Hydra, which takes plugins from the package ``hydra_plugins`` only."""

import warnings

from lora_lab.cli.sweeper import ParameterSweeper

# Hydra types conf/hydra/launcher/ by the launchers' own schemas and warns that it may stop that.
# The filter stands here because this file is imported first in the processes of a launcher too.
warnings.filterwarnings("ignore", message="(?s).*validated against ConfigStore schema")


class LabSweeper(ParameterSweeper):
    """The sweep under the name that ``conf/hydra/sweeper/lab.yaml`` gives."""
