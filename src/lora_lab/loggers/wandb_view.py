"""A saved view of one sweep on Weights & Biases: curves of its trainings, images of its samples.

Built with `wandb-workspaces`, which is optional: `pip install lora-lab[wandb]`.
"""

import logging
from collections.abc import Sequence
from typing import Any

log = logging.getLogger(__name__)
CURVES = (
    ("Learning rate at work (d · lr)", ("dlr/unet", "dlr/text_encoder", "d"), True),
    ("Training loss, mean of each epoch", ("loss/epoch",), False),
    ("Held-out loss", ("val/loss",), False),
)
"""Title, keys, and whether the axis is logarithmic."""


def build_view(entity: str, project: str, group: str, image_keys: Sequence[str]) -> Any:
    """The view as an object of wandb-workspaces; nothing is sent.

    Args:
        entity: User or team that the project belongs to.
        project: The project.
        group: The sweep's group; other runs are hidden.
        image_keys: Keys of the images of the sample jobs.

    Raises:
        ImportError: Wandb-workspaces is not installed.
    """
    import wandb_workspaces.reports.v2 as reports
    import wandb_workspaces.workspaces as workspaces
    from wandb_workspaces import expr

    curves: list[Any] = [
        reports.LinePlot(title=title, x="Step", y=list(keys), log_y=logarithmic)
        for title, keys, logarithmic in CURVES
    ]
    images: list[Any] = [
        reports.MediaBrowser(
            title=key, media_keys=[key], mode="grid", grid_x_axis="step", grid_y_axis="run"
        )
        for key in image_keys
    ]
    sections = [
        workspaces.Section(name="Training", panels=curves, is_open=True),
        workspaces.Section(name="Images", panels=images, is_open=True),
        workspaces.Section(name="Differences", panels=[reports.RunComparer(diff_only="split")]),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=f"Comparison of {group}",
        sections=sections,
        runset_settings=workspaces.RunsetSettings(filters=[expr.Metric("Group") == group]),
    )


def save_view(entity: str, project: str, group: str, image_keys: Sequence[str]) -> str | None:
    """Save the view; a failure is told and stops nothing, because all data is logged already.

    Returns:
        Its address; None when there is none.
    """
    try:
        view = build_view(entity, project, group, image_keys)
        view.save()
        log.info("the view of this sweep: %s", view.url)
        return str(view.url)
    except ImportError:
        log.info("no view was saved: `pip install lora-lab[wandb]` adds what it needs")
    except Exception as error:  # the server's answers have many types
        log.warning("the view could not be saved on Weights & Biases: %s", error)
    return None
