"""Batches side by side on a CPU: the bytes of one thread, and threads that leave no trace."""

import threading

import pytest
import torch

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.errors import LabError
from lora_lab.images.png_info import read_recipe
from lora_lab.lora_file import write_lora
from lora_lab.sampling import pipeline as drawing
from lora_lab.sampling.batch_threads import MOST_THREADS, batch_threads, thread_count
from lora_lab.sampling.generate import ImageRequest, draw_batch, draw_settings
from lora_lab.sampling.image_files import ImageWriter
from lora_lab.sampling.pipeline import ImageTask, LoRAPipeline
from lora_lab.sampling.replay import pixels, replay
from settings import tiny_sampling

CPU = torch.device("cpu")
PATIENCE = 60
"""Seconds after which what waits for another thread gives up; it takes none where all is well."""


@pytest.fixture(scope="module")
def base(tiny_base):
    return load_base(str(tiny_base))


@pytest.fixture
def threads():
    """Sets PyTorch's threads for the length of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    ("device", "intra_op", "side", "count"),
    [
        ("cpu", 3, 64, 3),
        ("cpu", 3, 128, 3),
        ("cpu", 3, 136, 1),
        ("cpu", 1, 64, 1),
        ("cpu", MOST_THREADS + 1, 64, MOST_THREADS),
        ("cuda", 3, 64, 1),
    ],
)
def test_small_images_on_a_cpu_are_drawn_on_as_many_threads_as_pytorch_has(
    threads, device, intra_op, side, count
):
    threads(intra_op)
    assert thread_count(torch.device(device), side, side) == count


@pytest.mark.parametrize(
    ("images", "most", "size"), [(29, 15, 15), (20, 20, 10), (50, 20, 13), (3, 9, 2), (1, 9, 1)]
)
def test_batches_are_of_a_size_with_which_two_threads_end_together(threads, images, most, size):
    with batch_threads(2) as pair:
        assert pair.batch_size(images, most) == size
    with batch_threads(1) as one:
        assert one.batch_size(images, most) == most


def test_pytorchs_threads_are_one_while_batches_are_drawn_and_as_before_afterwards(threads):
    threads(3)
    inside = []
    with batch_threads(2) as pair:
        for _ in range(2):
            pair.submit(lambda: inside.append(torch.get_num_threads()))
        inside.append(torch.get_num_threads())
    assert inside == [1, 1, 1]
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)
    with pytest.raises(ValueError, match="broken"), batch_threads(2):
        raise ValueError("broken")
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (3, 3)


def test_a_group_is_drawn_while_the_next_one_is_prepared_and_no_third_one_waits(threads):
    second, done = threading.Event(), []

    def draw_first():
        assert second.wait(PATIENCE)
        done.append(1)

    with batch_threads(2) as pair:
        pair.submit(draw_first)
        pair.end_group()
        pair.submit(second.set)
        pair.end_group()
        assert done == [1]


def test_what_ends_the_block_ends_the_batches(threads):
    """Ctrl-C in the main thread: the batch under way sees it, those that wait never begin."""
    begun, ended, late = threading.Event(), [], []
    with pytest.raises(KeyboardInterrupt), batch_threads(2) as pair:

        def draw():
            begun.set()
            ended.append(pair.stop.wait(PATIENCE))

        for _ in range(2):
            pair.submit(draw)
        pair.submit(lambda: late.append("begun"))
        assert begun.wait(PATIENCE)
        raise KeyboardInterrupt
    assert set(ended) == {True} and not late


def test_what_a_batch_raises_comes_out_of_the_block(threads):
    def fail():
        raise LabError("disk full")

    with pytest.raises(LabError, match="disk full"), batch_threads(2) as pair:
        pair.submit(fail)


def make_tasks(base, sampling, folder, loras=3):
    """Two images each of some LoRAs, the second of another one that its prompt names."""
    tasks = []
    for number in range(loras):
        lora = folder / "lora" / f"lora{number}.safetensors"
        if not lora.exists():
            write_lora(lora, random_lora(base, dim=2 + number, seed=number), {})
        prompts = [f"person {number}", "a [young:old:0.5] (person:1.2)<lora:lora0:0.5>"]
        tasks += [
            ImageTask(
                folder / "images" / f"{number}-{place}.png",
                ImageRequest(prompt, "bad", 10 * number + place),
                draw_settings(sampling),
                lora,
                1.0,
                plain_name=True,
            )
            for place, prompt in enumerate(prompts)
        ]
    return tasks


def small_sampling(tiny_base, folder, **settings):
    return tiny_sampling(tiny_base, lora_dir=str(folder / "lora"), **settings)


@pytest.mark.parametrize("sampler", ["DPM++ 2M Karras", "Euler a"])
@pytest.mark.parametrize("loras_at_once", [1, 9])
def test_images_that_are_drawn_side_by_side_have_the_bytes_of_one_thread(
    tmp_path, tiny_base, base, threads, monkeypatch, sampler, loras_at_once
):
    settings = {"sampler": sampler, "loras_at_once": loras_at_once, "batch_size": 9}
    meeting, workers = threading.Barrier(2), set()

    def met(*given):
        """The first two batches begin together, each on a thread of its own."""
        if len(workers) < 2:
            workers.add(threading.current_thread())
            meeting.wait(PATIENCE)
        return draw_batch(*given)

    found = {}
    for count in (1, 2):
        threads(count)
        folder = tmp_path / str(count)
        sampling = small_sampling(tiny_base, folder, **settings)
        tasks = make_tasks(base, sampling, folder, loras=4)
        if count > 1:
            monkeypatch.setattr(drawing, "draw_batch", met)
        outcomes = LoRAPipeline(base, sampling).draw(tasks)
        assert all(outcome.drawn for outcome in outcomes)
        assert {read_recipe(task.path).threads for task in tasks} == {1}
        found[count] = [pixels(task.path) for task in tasks]
    assert len(workers) == 2 and threading.main_thread() not in workers
    assert found[1] == found[2] and len(set(found[1])) == len(found[1])


def test_an_image_that_was_drawn_side_by_side_is_drawn_again_to_the_byte(
    tmp_path, tiny_base, base, threads
):
    threads(2)
    sampling = small_sampling(tiny_base, tmp_path)
    tasks = make_tasks(base, sampling, tmp_path)
    LoRAPipeline(base, sampling).draw(tasks)
    again = replay(tasks[1].path, tmp_path / "again", sampling, None, None)
    assert again.read_bytes() == tasks[1].path.read_bytes()


def test_nan_and_an_error_stay_with_their_images(tmp_path, tiny_base, base, threads, monkeypatch):
    threads(2)
    sampling = small_sampling(tiny_base, tmp_path, batch_size=2)
    tasks = make_tasks(base, sampling, tmp_path)
    ruined = random_lora(base, dim=2)
    key = next(key for key in ruined if key.startswith("lora_unet") and "lora_up" in key)
    ruined[key] *= float("inf")
    write_lora(tasks[2].lora, ruined, {})

    def failing(base, asked, *given):
        if any(image.seed == 20 for image in asked):
            raise RuntimeError("out of memory")
        return draw_batch(base, asked, *given)

    monkeypatch.setattr(drawing, "draw_batch", failing)
    outcomes = LoRAPipeline(base, sampling).draw(tasks)
    assert [outcome.problem for outcome in outcomes[2:4]] == ["the image came out as NaN"] * 2
    failed = [outcome for outcome in outcomes if outcome.problem == "out of memory"]
    drawn = [outcome for outcome in outcomes if outcome.drawn]
    assert failed and drawn and len(failed) + len(drawn) == 4
    assert all(task.path.exists() == one.drawn for task, one in zip(tasks, outcomes, strict=True))


def test_an_image_that_cant_be_written_ends_the_drawing(
    tmp_path, tiny_base, base, threads, monkeypatch
):
    threads(2)
    sampling = small_sampling(tiny_base, tmp_path)
    tasks = make_tasks(base, sampling, tmp_path)

    def full(*given):
        raise LabError("the disk is full")

    monkeypatch.setattr(ImageWriter, "write", full)
    with pytest.raises(LabError, match="the disk is full"):
        LoRAPipeline(base, sampling).draw(tasks)


def test_ctrl_c_leaves_whole_images_and_the_same_call_goes_on(
    tmp_path, tiny_base, base, threads, monkeypatch
):
    """It comes while the second LoRA is prepared, once the first one's images are drawn."""
    threads(2)
    sampling = small_sampling(tiny_base, tmp_path, loras_at_once=1)
    tasks = make_tasks(base, sampling, tmp_path)
    pipeline, written, write = (
        LoRAPipeline(base, sampling),
        threading.Semaphore(0),
        ImageWriter.write,
    )
    ready, calls = pipeline._ready, []

    def writing(*given):
        write(*given)
        written.release()

    def interrupted(*given):
        calls.append(given)
        if len(calls) == 2:
            assert written.acquire(timeout=PATIENCE)
            raise KeyboardInterrupt
        return ready(*given)

    with monkeypatch.context() as patch:
        patch.setattr(ImageWriter, "write", writing)
        patch.setattr(pipeline, "_ready", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.draw(tasks)
    there = [task.path.exists() for task in tasks]
    assert there == [read_recipe(task.path) is not None for task in tasks]
    outcomes = pipeline.draw(tasks)
    assert [not outcome.drawn for outcome in outcomes] == there and any(there) and not all(there)


def test_a_batch_that_is_not_wanted_any_more_ends_at_its_next_step(base, tiny_base, monkeypatch):
    sampling = tiny_sampling(tiny_base, steps=5)
    pipeline, stop, calls = LoRAPipeline(base, sampling), threading.Event(), []
    asked, _ = pipeline._prepare(
        None, 1.0, (), [(ImageRequest("person", "", 1), draw_settings(sampling))]
    )

    def step(*given):
        calls.append(given)
        if len(calls) == 2:
            stop.set()

    handle = base.unet.register_forward_pre_hook(step)
    try:
        with pytest.raises(BaseException) as raised:
            draw_batch(base, asked, draw_settings(sampling), stop)
    finally:
        handle.remove()
    assert raised.type.__name__ == "CancelledError" and len(calls) == 2
