"""Draws the grids of a run or sweep, or images from any kohya LoRA file.

python sample.py run=<run or sweep folder> [key=value ...]
python sample.py lora=<file.safetensors> prompt="..."
python sample.py --help
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from lora_lab.cli.entry import run_command

if TYPE_CHECKING:
    from lora_lab.config import SampleConfig


def main(cfg: DictConfig) -> None:
    """Draw what the config asks for and print where it is.

    Raises:
        LabError: Nothing could be drawn, or not all of it; says what.
    """
    from lora_lab.config import to_sample_config
    from lora_lab.sampling.grids.draw_grids import refuse_missing

    drawn, problems = sample(to_sample_config(cfg))
    for path in drawn:
        sys.stdout.write(f"{path}\n")
    sys.stdout.flush()
    refuse_missing(problems)


def sample(settings: "SampleConfig") -> tuple[list[Path], list[str]]:
    """Draw an image again, the grids of runs, images of a LoRA file, or a grid of one.

    PyTorch is imported here, so that --help and wrong settings answer fast.

    Args:
        settings: Checked settings.

    Returns:
        The images or grids, and a line for each image that is missing.

    Raises:
        LabError: Nothing could be drawn.
    """
    from lora_lab.config.sample import sampling_of
    from lora_lab.sampling.devices import set_threads
    from lora_lab.sampling.from_file import draw_from_file
    from lora_lab.sampling.grids.draw_grids import draw_file_grids, draw_grids
    from lora_lab.sampling.replay import replay
    from lora_lab.sampling.trained_base import with_trained_base

    names = (settings.run, settings.lora, settings.png, settings.scores)
    run, lora, png, scores = (Path(name).expanduser() if name else None for name in names)
    output = Path(settings.output).expanduser()
    if png is not None:
        return [replay(png, output, settings.sampling, lora, settings.threads)], []
    set_threads(settings.threads, run)
    sampling = sampling_of(settings)
    if run is not None:
        drawn = draw_grids(run, with_trained_base(sampling, run), scores)
        return drawn.grids, drawn.problems
    assert lora is not None
    if settings.rows is not None:
        drawn = draw_file_grids(lora, output, sampling)
        return drawn.grids, drawn.problems
    seeds = range(sampling.seed, sampling.seed + settings.count)
    return draw_from_file(lora, output, settings.prompt, seeds, sampling)


if __name__ == "__main__":
    sys.exit(run_command(main, "sample", Path(__file__).parent / "conf", sys.argv[1:]))
