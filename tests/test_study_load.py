"""What a sweep folder says, also when parts of it are missing, damaged or foreign."""

import json

import numpy as np
import pytest

from lora_lab.errors import ConfigError, LabError
from lora_lab.study.judge.run_measures import measure
from lora_lab.study.read.held_out_file import TRAIN_LOSS, read_image_losses, with_image_losses
from lora_lab.study.read.load import Run, load_sweep
from lora_lab.study.read.metrics_table import read_metrics
from study_sweep_builder import GAP, STRATA, SweepBuilder


@pytest.fixture
def sweep(tmp_path):
    return SweepBuilder(tmp_path / "sweep").base(2).value("8", effect=0.01)


def by_name(folder):
    return {run.name: run for run in load_sweep(folder).runs}


def test_a_whole_sweep_is_read_without_a_note(sweep):
    loaded = load_sweep(sweep.write())
    assert loaded.parameter == "network.dim"
    assert loaded.base_value == "16"
    assert [run.name for run in loaded.base_runs] == ["base", "base-2"]
    assert all(run.complete and not run.notes for run in loaded.runs)
    run = loaded.runs[2]
    assert run.value == "8" and run.config["network.dim"] == "8"
    assert run.metrics.steps.tolist() == list(range(1, 81))
    assert f"val/loss_t{STRATA[0]}" in run.metrics.columns
    assert run.record.peak_memory_bytes == {"process": 1.4e9}


def test_a_folder_that_is_none_is_a_wrong_argument(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder"):
        load_sweep(tmp_path / "nowhere")


def test_a_folder_without_sweep_json_is_a_wrong_argument(tmp_path):
    with pytest.raises(ConfigError, match=r"sweep\.json is missing"):
        load_sweep(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "not complete JSON"),
        ("[" * 100_000, "not complete JSON"),
        ("[]", "no list of runs"),
        ('{"parameter": "network.dim"}', "no list of runs"),
        ('{"runs": [{}]}', "names no parameter"),
        ('{"parameter": "network.dim", "runs": []}', "lists no runs"),
    ],
)
def test_a_sweep_json_that_says_too_little_is_refused_in_one_line(tmp_path, text, problem):
    (tmp_path / "sweep.json").write_text(text, encoding="utf-8")
    with pytest.raises(LabError, match=problem) as caught:
        load_sweep(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_run_without_a_folder_is_missing_not_fatal(sweep):
    sweep.value("32", status="missing")
    run = by_name(sweep.write())["network.dim=32"]
    assert run.status == "missing" and len(run.metrics.steps) == 0


def test_a_failed_run_keeps_its_reason(sweep):
    sweep.value("0", status="failed", error="loss is NaN\nin step 3")
    run = by_name(sweep.write())["network.dim=0"]
    assert run.status == "failed" and run.error == "loss is NaN in step 3"


def test_a_run_that_was_killed_is_unfinished(sweep):
    sweep.value("4", status="running")
    assert by_name(sweep.write())["network.dim=4"].status == "unfinished"


def test_a_damaged_run_json_is_named(sweep):
    folder = sweep.write()
    (folder / "base-2" / "run.json").write_text('{"status": "comp', encoding="utf-8")
    run = by_name(folder)["base-2"]
    assert run.status == "missing" and "not complete JSON" in run.notes[0]


def test_a_damaged_config_is_named(sweep):
    folder = sweep.write()
    (folder / "base" / "config.yaml").write_text("a: [1", encoding="utf-8")
    run = by_name(folder)["base"]
    assert run.config == {} and "config.yaml is not YAML" in run.notes


def test_a_config_is_never_executed(sweep, tmp_path):
    folder = sweep.write()
    harm = tmp_path / "harm"
    (folder / "base" / "config.yaml").write_text(
        f"a: !!python/object/apply:os.mkdir ['{harm}']", encoding="utf-8"
    )
    assert by_name(folder)["base"].config == {}
    assert not harm.exists()


def test_numbers_of_the_wrong_type_in_run_json_are_left_out(sweep):
    folder = sweep.write()
    path = folder / "base" / "run.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    facts |= {"seconds": [1, 2], "lora_bytes": "much", "fingerprints": None}
    path.write_text(json.dumps(facts), encoding="utf-8")
    record = by_name(folder)["base"].record
    assert record.seconds == {} and np.isnan(record.lora_bytes) and record.fingerprints == {}


def test_a_run_folder_that_the_sweep_does_not_list_is_named(sweep):
    folder = sweep.write()
    (folder / "stranger").mkdir()
    (folder / "stranger" / "run.json").write_text("{}", encoding="utf-8")
    assert any("stranger" in note for note in load_sweep(folder).notes)


def test_a_reused_run_outside_of_the_sweep_folder_is_read(sweep, tmp_path):
    folder = sweep.write()
    (folder / "base").rename(tmp_path / "elsewhere")
    record = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    record["runs"][0] |= {"folder": "../elsewhere", "reused": True}
    (folder / "sweep.json").write_text(json.dumps(record), encoding="utf-8")
    run = by_name(folder)["base"]
    assert run.complete and run.reused


def metrics(tmp_path, text):
    path = tmp_path / "metrics.csv"
    path.write_text(text, encoding="utf-8")
    return read_metrics(path)


def test_a_last_line_that_was_cut_off_is_left_out_and_named(tmp_path):
    table = metrics(tmp_path, "step,loss/step\n1,0.5\n2,0.25\n3,0.1")
    assert table.steps.tolist() == [1, 2]
    assert "middle of a line" in table.notes[0]


def test_a_damaged_line_is_left_out_and_named_by_number(tmp_path):
    table = metrics(tmp_path, "step,loss/step\n1,0.5\n2\n3,abc\n4,0.1\n")
    assert table.steps.tolist() == [1, 4]
    assert "line 3 has 1 cells" in table.notes[0]
    assert "line 4 holds something that is not a number" in table.notes[1]


def test_many_damaged_lines_are_counted_not_listed(tmp_path):
    table = metrics(tmp_path, "step,loss/step\n" + "x\n" * 50 + "1,0.5\n")
    assert len(table.notes) == 4 and "47 more lines" in table.notes[-1]


def test_rows_of_one_step_are_joined(tmp_path):
    table = metrics(tmp_path, "step,loss/step,val/loss\n1,0.5,\n1,,0.7\n")
    assert table.column("loss/step").tolist() == [0.5]
    assert table.column("val/loss").tolist() == [0.7]


def test_steps_out_of_order_are_sorted(tmp_path):
    assert metrics(tmp_path, "step,d\n3,1\n1,2\n").column("d").tolist() == [2.0, 1.0]


def test_a_column_that_is_not_there_is_not_measured(tmp_path):
    table = metrics(tmp_path, "step,d\n1,2\n")
    assert not table.measured("dlr/unet") and np.isnan(table.column("dlr/unet")).all()


@pytest.mark.parametrize("text", ["", "\n", "step", "loss\n1\n", "step,d\n"])
def test_a_metrics_file_with_nothing_in_it_is_said(tmp_path, text):
    table = metrics(tmp_path, text)
    assert len(table.steps) == 0 and table.notes


def test_bytes_that_are_no_text_do_not_stop_the_reading(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes(b"step,d\n1,2\n\xff\xfe\x00,3\n")
    assert read_metrics(path).steps.tolist() == [1]


def test_the_gap_is_held_out_minus_training_images(sweep):
    run = by_name(sweep.write())["base"]
    assert measure(run).gap == pytest.approx(GAP)
    assert np.isfinite(run.metrics.column(TRAIN_LOSS)).sum() == 1


def test_losses_of_single_images_are_means_over_the_timesteps(sweep):
    losses = read_image_losses(sweep.write() / "base" / "held_out.csv").final
    assert losses["b"] - losses["a"] == pytest.approx(0.004)


@pytest.mark.parametrize("text", ["", "step,set\n1,x\n", "step,set,image,timestep,loss\n1,hel"])
def test_a_damaged_file_of_image_losses_says_nothing(tmp_path, text):
    path = tmp_path / "held_out.csv"
    path.write_text(text, encoding="utf-8")
    assert read_image_losses(path).final == {} and read_image_losses(path).training == {}


def held_out_csv(path, gains):
    lines = ["step,set,image,timestep,loss"]
    for (part, image), gain in gains.items():
        lines += [f"0,{part},{image},500,0.3", f"9,{part},{image},500,{0.3 - gain}"]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_image_losses(path)


def test_memorisation_is_the_share_of_training_images_that_gained_more(tmp_path):
    gains = {
        **{("training", name): gain for name, gain in (("a", 0.2), ("b", 0.1), ("c", 0.01))},
        **{("held_out", name): gain for name, gain in (("x", 0.05), ("y", 0.1))},
    }
    found = held_out_csv(tmp_path / "held_out.csv", gains).memorisation
    assert found == pytest.approx({("x", "500/3"): 2 / 3, ("y", "500/3"): 1 / 2})


def written(path, losses):
    """A held_out.csv of step, set, image, timestep and loss."""
    lines = ["step,set,image,timestep,loss", *(",".join(map(str, row)) for row in losses)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_image_losses(path)


def test_training_images_are_compared_with_held_out_ones_at_the_same_timestep(tmp_path):
    """Gains at timestep 100 are larger than those at 900, whoever was trained on."""
    losses = written(
        tmp_path / "held_out.csv",
        [
            *((0, part, image, t, 2) for part in ("training", "held_out") for image in "ab"
              for t in (100, 900)),
            *((9, "training", "a", 100, 0.8), (9, "training", "b", 900, 1.8)),
            *((9, "held_out", "a", 100, 1.0), (9, "held_out", "a", 900, 1.7)),
        ],
    )  # fmt: skip
    assert losses.memorisation == {("a", "100/1"): 1.0, ("a", "900/1"): 0.0}
    assert losses.training == {9: pytest.approx(1.3)}


def test_a_save_that_measured_fewer_images_is_placed_by_its_distance_to_the_last(tmp_path):
    """Image a is easier than b at both timesteps; step 2 is better than step 3 in what it has."""
    losses = written(
        tmp_path / "held_out.csv",
        [
            *((1, "held_out", "a", 100, 0.3), (1, "held_out", "b", 900, 0.8)),
            *((2, "held_out", "a", 100, 0.1), (2, "held_out", "b", 900, 0.6)),
            *((3, "held_out", "a", 100, 0.2), (3, "held_out", "b", 100, 0.6)),
            *((3, "held_out", "a", 900, 0.4), (3, "held_out", "b", 900, 0.6)),
        ],
    )
    assert losses.curves == {
        "val/loss_t100": {1: pytest.approx(0.5), 2: pytest.approx(0.3), 3: pytest.approx(0.4)},
        "val/loss_t900": {1: pytest.approx(0.7), 2: pytest.approx(0.5), 3: pytest.approx(0.5)},
        "val/loss": {1: pytest.approx(0.6), 2: pytest.approx(0.4), 3: pytest.approx(0.45)},
    }
    table = metrics(tmp_path, "step,val/loss,val/loss_t100\n1,7,7\n2,7,7\n3,7,7\n")
    run = Run("r", tmp_path, "1", False, 1, "complete", metrics=with_image_losses(table, losses))
    found = measure(run)
    assert found.held_out == pytest.approx(0.45) == np.mean(list(losses.units.values()))
    assert (found.held_out_best, found.held_out_best_step) == (pytest.approx(0.4), 2)
    assert found.held_out_by_timestep == {100: pytest.approx(0.4), 900: pytest.approx(0.5)}


def test_the_curve_of_earlier_runs_whose_saves_all_measured_the_same_is_their_means(tmp_path):
    losses = written(
        tmp_path / "held_out.csv",
        [
            *((1, "held_out", "a", 100, 0.3), (1, "held_out", "b", 100, 0.8)),
            *((2, "held_out", "a", 100, 0.4), (2, "held_out", "b", 100, 0.5)),
            (0, "held_out", "a", 100, 2.0),
        ],
    )
    means = {1: pytest.approx(0.55), 2: pytest.approx(0.45)}
    assert losses.curves == {"val/loss_t100": means, "val/loss": means}


def test_the_figures_of_a_single_save_are_those_of_metrics_csv(tmp_path):
    losses = written(tmp_path / "held_out.csv", [(9, "held_out", "a", 100, 0.3)])
    table = metrics(tmp_path, "step,val/loss\n9,7\n")
    assert losses.curves == {}
    assert with_image_losses(table, losses).column("val/loss").tolist() == [7]


def test_nothing_is_said_of_memorisation_without_the_losses_before_the_first_step(tmp_path):
    path = tmp_path / "held_out.csv"
    text = "step,set,image,timestep,loss\n9,training,a,500,0.1\n9,held_out,x,500,0.2\n"
    path.write_text(text, encoding="utf-8")
    assert read_image_losses(path).memorisation == {}
    assert held_out_csv(path, {("training", "a"): 0.1, ("held_out", "x"): 0.0}).training == {
        9: pytest.approx(0.2)
    }
