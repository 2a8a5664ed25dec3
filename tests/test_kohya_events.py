"""Reading TensorBoard's event files."""

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kohya_logs import growing_d, noise, write_run
from lora_lab.study.kohya_logs.events import read_events


@pytest.fixture
def file(tmp_path):
    return write_run(tmp_path, noise(1, 40), growing_d(40, 1.02, 1e-3))


def test_scalars_equal_those_of_tensorboards_own_reader(file):
    reader = EventAccumulator(str(file), size_guidance={"scalars": 0})
    reader.Reload()
    found = read_events(file)
    assert not found.problem and set(found.tags) == set(reader.Tags()["scalars"])
    for tag, scalars in found.tags.items():
        expected = reader.Scalars(tag)
        assert scalars.steps.tolist() == [event.step for event in expected]
        assert scalars.values.tolist() == [event.value for event in expected]
        assert scalars.times.tolist() == [event.wall_time for event in expected]


@pytest.mark.parametrize("cut", [1, 5, 14, 30])
def test_a_file_that_is_cut_off_gives_what_is_whole(file, cut):
    whole = read_events(file)
    file.write_bytes(file.read_bytes()[:-cut])
    found = read_events(file)
    assert "cut off" in found.problem
    assert np.array_equal(found.tags["loss/current"].steps[:39], np.arange(1, 40))
    assert whole.tags["loss/current"].values[:39].tolist() == (
        found.tags["loss/current"].values[:39].tolist()
    )


@pytest.mark.parametrize("content", [b"", b"not an event file at all, but text\n" * 9, b"\0" * 50])
def test_other_files_give_a_problem_or_nothing_and_no_error(tmp_path, content):
    path = tmp_path / "events.out.tfevents.1.x"
    path.write_bytes(content)
    found = read_events(path)
    assert not found.tags and (found.problem or not content or content[:1] == b"\0")
