"""What a run says of its memory."""

import pytest
import torch

from lora_lab.training.callbacks import cost


@pytest.mark.parametrize("refused", [False, True])
def test_the_devices_peak_counts_anew_also_where_the_process_may_not(
    refused, tmp_path, monkeypatch
):
    clear = tmp_path / "clear_refs"
    if refused:
        clear.mkdir()  # writing to it is an OSError, as in a container without the right
    else:
        clear.touch()
    reset = []
    monkeypatch.setattr(cost, "_CLEAR_REFS", clear)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: reset.append(True))
    cost.reset_peak_memory()
    assert reset == [True]
    assert refused or clear.read_text() == "5"
