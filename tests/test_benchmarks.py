"""The benchmarks measure and print, on the tiny base; a clock of ours holds what is counted."""

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import pytest
import torch
from PIL import Image

from benchmarks import (
    process_memory,
    sampling,
    stack_throughput,
    start_up_parts,
    sweep,
    training_step,
)
from benchmarks.process_memory import CommandCost
from benchmarks.settings import images_per_epoch, steps_per_epoch, train_settings
from benchmarks.start_up import run_seconds
from benchmarks.table import alone, paired, render, render_columns
from lora_lab.checkpoint.base_model import load_base
from lora_lab.data.inputs import SharedInputs
from lora_lab.network import inject_lora
from lora_lab.sampling.pipeline import ImageResult
from settings import composed_tree

CPU = torch.device("cpu")


@pytest.fixture
def tiny_overrides(tiny_base, tiny_person):
    return [
        f"model.checkpoint={tiny_base}",
        f"data.dir={tiny_person}",
        "data.resolution=32",
        "sampling.width=32",
        "sampling.height=32",
        "sampling.steps=2",
        "sampling.batch_size=2",
        "trainer.threads=1",
    ]


@dataclass
class StoppedClock:
    """Stands where the module `time` does; goes on only when it is told to."""

    now: float = 0.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class BareStep:
    """A bare loop whose steps take as long as it says."""

    clock: StoppedClock
    seconds: float
    seen: list[tuple[int, int]] = field(default_factory=list)

    def step(self, latents: int, input_ids: int) -> float:
        self.clock.now += self.seconds
        self.seen.append((latents, input_ids))
        return self.seconds


def test_paired_takes_the_median_of_the_ratios_round_by_round():
    row = paired("x", ours=[2.0, 30.0, 4.0], bare=[1.0, 10.0, 4.0], unit="s")
    assert (row.ours, row.bare, row.ratio) == (4.0, 4.0, 2.0)
    assert row.ratios == (1.0, 3.0)


def test_the_table_shows_ours_bare_ratio_spread_and_unit():
    rows = [paired("step", [2.0, 6.0, 3.0], [1.0, 2.0, 2.0], "s"), alone("help", [1.0, 0.5], "s")]
    lines = render(rows).splitlines()
    assert lines[0].split() == ["ours", "bare", "ratio", "spread", "unit"]
    assert lines[1].split() == ["step", "3", "2", "2.00", "1.50–3.00", "s"]
    assert lines[2].split() == ["help", "0.75", "s"]


def test_figures_stand_below_each_other_beside_a_long_name():
    lines = render([alone("x" * 60, [1.0], "s"), alone("y", [2.0], "s")]).splitlines()
    assert len({line.rindex("s") for line in lines[1:]}) == 1


def test_columns_show_the_median_and_the_spread_of_several_rounds():
    rows = [("images/s", [[1.0, 3.0, 2.0], [40.0]]), ("drawn", [[], [0.5]])]
    title, names, *lines = render_columns("sweep", ["one", "two"], rows).splitlines()
    assert title == "sweep" and names.split() == ["one", "two"]
    assert lines[0].split() == ["images/s", "2", "(1–3)", "40"]
    assert lines[1].split() == ["drawn", "0.5"]
    assert len({len(line) for line in (names, *lines)}) == 1


def test_a_step_of_ours_is_all_between_two_batches_and_no_bare_step(monkeypatch):
    """The loading of the batch (0.5 s) and what is done with it; bare steps see the same batch."""
    clock = StoppedClock()
    monkeypatch.setattr(training_step, "time", clock)
    loops = [BareStep(clock, 2.0), BareStep(clock, 5.0)]
    seconds: list[list[float]] = [[], [], []]

    def deliver(place: int) -> dict[str, int]:
        clock.now += 0.5
        return {"latents": place, "input_ids": -place}

    batch = training_step.interleave(deliver, loops, seconds)
    for place, step in enumerate((3.0, 4.0, 7.0)):
        assert batch(place) == {"latents": place, "input_ids": -place}
        clock.now += step
    assert seconds == [[3.5, 4.5], [2.0] * 3, [5.0] * 3]
    assert loops[0].seen == loops[1].seen == [(0, 0), (1, -1), (2, -2)]


@pytest.mark.parametrize("fused_adamw", [False, True])
def test_a_bare_step_trains_the_tensors_that_ours_trains(fused_adamw, tiny_overrides):
    config = train_settings(tiny_overrides)
    loop = training_step.BareLoop(config, fused_adamw)
    before = {name: flat.detach().clone() for name, (flat,) in loop.groups.items()}
    with inject_lora(load_base(config.model.checkpoint), config.network, config.seed) as network:
        parts = network.trainable(config.model.clip_skip)
        ours = {name: sum(tensor.numel() for tensor in tensors) for name, tensors in parts.items()}
    assert {name: flat.numel() for name, flat in before.items()} == ours
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 8, 8, generator=draws)
    input_ids = torch.randint(0, 500, (2, 77), generator=draws)
    for _ in range(2):  # the first moves the upper matrices, the second all
        loop.step(latents, input_ids)
    for name, (flat,) in loop.groups.items():
        assert flat.grad is not None and not flat.grad.any()
        assert float((flat != before[name]).float().mean()) > 0.9, name


def test_the_output_of_a_timed_process_is_shown_only_if_it_fails(capfd):
    loud = "import sys; print('said'); print('warned', file=sys.stderr); sys.exit({})"
    assert run_seconds(["-c", loud.format(0)]) > 0
    assert capfd.readouterr() == ("", "")
    with pytest.raises(subprocess.CalledProcessError):
        run_seconds(["-c", loud.format(3)])
    shown = capfd.readouterr().err
    assert "said" in shown and "warned" in shown


@pytest.mark.slow
def test_sampling_is_measured_against_a_bare_loop_and_against_pipelines(tiny_overrides):
    bare, pipelines = sampling.measure(tiny_overrides, rounds=1)
    for row in (bare, pipelines):
        assert row.unit == "images/s" and row.ours > 0 and row.bare and row.ratio


def test_a_run_is_drawn_by_both_in_the_same_images(monkeypatch, tiny_overrides, tmp_path):
    """29 images: two of each of ten LoRAs, nine of the last; the bare loop fills its batches."""
    config = train_settings(tiny_overrides)
    drawn, counts = sampling.LoRAPipeline.draw, []
    monkeypatch.setattr(
        sampling.LoRAPipeline,
        "draw",
        lambda *given: (counts.append(len(given[1])), drawn(*given))[1],
    )
    bare, sizes = sampling.bare_images, []
    monkeypatch.setattr(
        sampling, "bare_images", lambda *given: (sizes.append(len(given[2])), bare(*given))[1]
    )
    config.sampling.batch_size, config.sampling.loras_at_once = 10, 10
    row = sampling._within_a_process(config, tmp_path, rounds=1)
    assert counts == [29, 29] and sizes == [9, 10, 10] * 2
    assert "29 images of 2 steps" in row.what


def test_with_several_threads_side_by_side_is_held_against_all_threads_on_each_batch(
    monkeypatch, tiny_overrides, tmp_path
):
    config, asked, threads = train_settings(tiny_overrides), [], torch.get_num_threads()

    def draw(pipeline, tasks):
        asked.append(sampling.thread_count(CPU, 32, 32))
        return [ImageResult(None, drawn=True) for _ in tasks]

    monkeypatch.setattr(sampling.LoRAPipeline, "draw", draw)
    try:
        torch.set_num_threads(1)
        assert sampling._side_by_side(config, tmp_path, rounds=1) == [] and asked == []
        torch.set_num_threads(2)
        (row,) = sampling._side_by_side(config, tmp_path, rounds=1)
    finally:
        torch.set_num_threads(threads)
    assert asked == [2, 1] * 2 and row.ratio


def test_the_loop_of_pipelines_draws_each_lora_on_each_checkpoint(
    tiny_overrides, tiny_base, tmp_path
):
    config = train_settings([*tiny_overrides, f"sampling.checkpoints=[{tiny_base}]"])
    (tmp_path / "lora").mkdir()
    names = [f"lora-step{step:08}" for step in range(1, 11)]
    for name in [*names, "lora"]:  # the last step's file is the final LoRA under another name
        (tmp_path / "lora" / f"{name}.safetensors").touch()
    plan = sampling._plan(config, tmp_path, tmp_path / "out", threads=1)
    assert [len(one.prompts) for one in plan.sets] == [2] * 9 + [11]
    assert all(one.checkpoint == str(tiny_base) for one in plan.sets)
    assert all("{subject}" not in prompt for one in plan.sets for prompt in one.prompts)


@pytest.mark.slow
def test_training_is_measured_against_bare_loops(tiny_overrides):
    same, floor = training_step.measure(tiny_overrides, steps=8)
    assert same.ours == floor.ours > 0
    assert same.bare and floor.bare and same.bare != floor.bare
    steps = re.search(r"\((\d+) steps\)", same.what)
    assert steps is not None and int(steps[1]) >= 8


def a_run(folder, stack: int | None, seconds: dict[str, float], steps: list[float]) -> None:
    """A finished run's record, as far as the benchmark of sweeps reads it."""
    folder.mkdir(parents=True)
    facts = {"status": "complete", "seconds": seconds}
    if stack is not None:
        facts["stack"] = {"runs": stack}
    (folder / "run.json").write_text(json.dumps(facts))
    rows = [f"{step},{taken}" for step, taken in enumerate(steps, 1)]
    (folder / "metrics.csv").write_text("\n".join(["step,seconds", *rows]) + "\n")


def written_at(path, when: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (when, when))


def test_a_sweep_tells_where_its_time_went(tmp_path):
    """Two stacks of two runs, two processes, 50 s: each second of a stack is its runs' together."""
    phases = {"start_up": 2.0, "caching": 1.0, "training": 20.0, "held_out": 4.0, "saving": 1.0}
    names = [f"run{number}" for number in range(4)]
    for name in names:
        seconds = phases | {"sampling": 5.0, "scoring": 2.0, "step_median": 1.0}
        a_run(tmp_path / name, 2, seconds, [11.0, *(12.0 + step for step in range(9))])
        written_at(tmp_path / name / "lora" / "lora.safetensors", 1030.0)
        written_at(tmp_path / name / "images" / "metrics" / "0.png", 1040.0)
        written_at(tmp_path / name / "image_scores.json", 1044.0)
    written_at(tmp_path / "report" / "index.html", 1049.0)
    record = {"runs": [{"folder": name} for name in names]}
    (tmp_path / "sweep.json").write_text(json.dumps(record))
    cost = sweep.read_cost(tmp_path, CommandCost(1000.0, 50.0, 7), processes=2, images=30)
    assert (cost.seconds, cost.trained, cost.scored, cost.peak_bytes) == (50.0, 30.0, 44.0, 7)
    assert cost.images == 120
    # Nine steps after the first take 9 s, ten 10 s: each stack learns 60 images in them.
    assert cost.images_per_second == pytest.approx(12.0)
    assert cost.parts == pytest.approx(
        {
            "start-up in train.py": 0.06,
            "training steps": 0.4,
            "held-out loss": 0.08,
            "saves": 0.02,
            "drawing": 0.2,
            "scoring": 0.08,
            "grids and report": 0.05,
            "imports, loading to draw, waiting": 0.11,
        }
    )


def test_a_run_alone_counts_its_seconds_once(tmp_path):
    seconds = dict.fromkeys(("start_up", "caching", "training", "held_out", "saving"), 1.0)
    a_run(tmp_path / "base", None, seconds, [1.0, 2.0])
    written_at(tmp_path / "base" / "lora" / "lora.safetensors", 1003.0)
    written_at(tmp_path / "report" / "index.html", 1004.0)
    (tmp_path / "sweep.json").write_text(json.dumps({"runs": [{"folder": "base"}]}))
    cost = sweep.read_cost(tmp_path, CommandCost(1000.0, 10.0, 7), processes=1, images=30)
    assert cost.images_per_second == pytest.approx(15.0)
    assert cost.parts["training steps"] == pytest.approx(0.1) and cost.parts["scoring"] == 0


def test_sweeps_are_held_against_two_processes_round_by_round():
    def cost(seconds: float, rate: float) -> sweep.SweepCost:
        return sweep.SweepCost(seconds, seconds / 2, seconds / 2, 120, rate, 10**9, {"saves": 0.5})

    costs = {
        sweep.SEQUENTIAL: [cost(60.0, 10.0), cost(90.0, 10.0)],
        sweep.TWO: [cost(30.0, 20.0), cost(30.0, 40.0)],
        sweep.STACKED: [cost(15.0, 40.0), cost(10.0, 40.0)],
    }
    lines = sweep.render_sweeps("sweep", costs).splitlines()
    against = [line for line in lines if line.startswith("... against two processes")]
    assert [re.findall(r"[\d.]+(?= \()", line) for line in against] == [
        ["0.375", "1", "1.5"],
        ["0.417", "1", "2.5"],
    ]
    assert not [line for line in lines if "until the last image" in line]
    assert re.findall(r"[\d.]+(?= \()", lines[-1]) == ["50"] * 3


@pytest.mark.parametrize("name", list(sweep.ways(2, gpu=False)))
@pytest.mark.parametrize("cores", [1, 2, 16])
@pytest.mark.parametrize("gpu", [False, True])
def test_each_way_of_a_sweep_uses_all_cores(name, cores, gpu):
    way = sweep.ways(cores, gpu)[name]
    threads = next(int(o.split("=")[1]) for o in way.overrides if o.startswith("trainer.threads"))
    if cores > 1 and not gpu:
        assert way.processes * threads == cores
    told = [o for o in way.overrides if o.endswith(f"n_jobs={way.processes}")]
    assert told or name == sweep.SEQUENTIAL
    composed_tree(*way.overrides, with_hydra=True)


def test_a_watched_command_tells_the_memory_of_what_it_starts(tmp_path, monkeypatch):
    """The grandchild holds 80 MB until they were seen."""
    held, seen = process_memory.held_bytes, tmp_path / "seen"

    def noting(pid: int) -> int:
        total = held(pid)
        if total > 80e6:
            seen.touch()
        return total

    monkeypatch.setattr(process_memory, "held_bytes", noting)
    child = (
        "import pathlib, time; held = bytearray(80 * 10**6)\n"
        "for _ in range(1200):\n"
        "    pathlib.Path('seen').exists() and exit()\n"
        "    time.sleep(0.05)"
    )
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = process_memory.run_watched([sys.executable, "-c", parent], tmp_path)
    assert seen.exists() and cost.peak_bytes > 80e6 and cost.seconds > 0


def test_a_watched_command_that_fails_is_told_with_its_last_lines(tmp_path):
    with pytest.raises(RuntimeError, match="no such thing"):
        process_memory.run_watched(
            [sys.executable, "-c", "raise SystemExit('no such thing')"], tmp_path
        )


def test_a_step_of_a_stack_is_all_between_two_batches_of_one_run():
    clock, stamps = StoppedClock(), []
    batch = stack_throughput.stamping(
        lambda number: number, threading.current_thread().name, stamps, clock.perf_counter
    )
    for number in range(3):
        assert batch(number) == number
        other = threading.Thread(target=batch, args=(number,))
        other.start()
        other.join()
        clock.now += 2.0
    assert stamps == [0.0, 2.0, 4.0]


def test_a_stack_is_held_against_as_many_runs_alone():
    found = stack_throughput.StackThroughput(3, {1: [1.0, 2.0], 4: [2.0, 2.0]})
    assert found.images(4) == [6.0, 6.0] and found.ratios(4) == [2.0, 4.0]


def test_the_figure_of_stacks_shows_every_batch_size(tmp_path):
    seconds = {runs: [0.1 * runs**0.5, 0.12 * runs**0.5] for runs in stack_throughput.STACKS}
    found = [stack_throughput.StackThroughput(batch, seconds) for batch in (1, 3)]
    path = tmp_path / "stacking.webp"
    stack_throughput.draw_stacks(found, path)
    with Image.open(path) as picture:
        assert picture.format == "WEBP" and picture.width > 600
    stack_throughput.draw_stacks(found[:1], tmp_path / "one.webp")
    assert path.read_bytes() != (tmp_path / "one.webp").read_bytes()


def test_runs_of_a_stack_are_measured_on_steps_and_leave_nothing(tiny_overrides, monkeypatch):
    """12 images in batches of 3: with the two steps that warm up, two epochs of four."""
    config = train_settings([*stack_throughput.QUIET, *tiny_overrides])
    assert (images_per_epoch(config), steps_per_epoch(config)) == (12, 4)
    config.epochs = 2
    ticks = iter(range(1000))
    monkeypatch.setattr(stack_throughput, "_clock", lambda config: lambda: float(next(ticks)))
    for runs in (1, 2):
        assert stack_throughput.step_seconds(config, runs, SharedInputs()) == 1.0


def test_the_parts_of_a_start_add_up_to_its_first_step(tiny_overrides):
    parts = start_up_parts.Parts({start_up_parts.PYTHON: 0.0})
    start_up_parts.measure_parts(tiny_overrides, parts)
    assert next(iter(parts)) == start_up_parts.PYTHON and start_up_parts.STEP in parts
    assert all(seconds >= 0 for seconds in parts.values())
    assert min(parts["load the base"], parts["encode latents"], parts[start_up_parts.STEP]) > 0


@pytest.mark.slow
def test_a_sweep_is_measured_in_each_way(tiny_overrides, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # threads wait for each other on a busy machine
    sizes = [one for one in tiny_overrides if not one.startswith("trainer.threads")]
    drawn = ["sampling.grids=[]", "metrics.enabled=false", "trainer.accelerator=cpu"]
    monkeypatch.setattr(sweep, "BATCHES", {3: ()})
    (table,) = sweep.measure([*sizes, *drawn], steps=8, rounds=1)
    assert "batch 3, 8 steps a run" in table
    first = next(line for line in table.splitlines() if line.startswith("images/s in training"))
    assert len(re.findall(r" [\d.]+", first)) == 3
