"""A comparison from kohya's logs: what it finds by itself, and what it does with bad logs."""

import csv
import re
import shutil

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from kohya_logs import cosine, growing_d, noise, write_run, write_settings, write_study
from lora_lab.errors import ConfigError
from lora_lab.study.__main__ import main
from lora_lab.study.judge.verdict import judge
from lora_lab.study.kohya_logs.build import words_of
from lora_lab.study.kohya_logs.compare_logs import comparisons
from lora_lab.study.kohya_logs.find import LogFolder
from lora_lab.study.kohya_logs.growth import measure_growth
from lora_lab.study.kohya_logs.read_logs import load_logs
from lora_lab.study.kohya_logs.run_settings import RunSettings, schedule_of


def by_label(folder):
    return {run.label: run for run in load_logs(folder).runs}


def only(folder):
    (one,) = comparisons(load_logs(folder))
    return one


def test_the_factor_and_its_stretch_are_found_in_a_curve_of_known_growth():
    steps = np.arange(1, 501)
    growth = measure_growth(steps, growing_d(500, 1.02, 2e-3))
    assert growth.factor == pytest.approx(1.02, abs=1e-6)
    assert growth.start == 6 and growth.end == pytest.approx(6 + np.log(2000) / np.log(1.02), abs=2)
    assert growth.last == pytest.approx(2e-3)


def test_jumps_are_no_rate():
    jumps = np.cumprod(np.r_[1e-6, np.random.default_rng(0).uniform(1, 2, 200)])
    assert np.isnan(measure_growth(np.arange(1, 202), jumps).factor)


def test_the_study_is_read_without_being_told_what_is_in_it(tmp_path):
    one = only(write_study(tmp_path))
    assert one.sweep.parameter == "network.alpha" and one.sweep.base_value == "1"
    runs = {run.label: run for run in one.runs}
    assert runs["64"].member.stream != runs["1_13.08"].member.stream
    assert {runs[label].member.inputs for label in ("1_13.08", "32")} == {"A"}
    assert {runs[label].member.inputs for label in ("1_17.08", "128")} == {"B"}
    text = " ".join(one.findings)
    assert "5.0 % lower at step 1, before anything was learned" in text
    assert "can't be compared with those of the other: the inputs differ" in text
    assert "64 (" in text and "share the noise" in text
    assert "d grows as 1.06^k" in text


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of the study."""
    folder = tmp_path_factory.mktemp("study")
    assert main(["--kohya", str(write_study(folder / "in")), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_runs_of_other_noise_or_inputs_are_not_ranked(report):
    rows = list(csv.DictReader((report / "comparison.csv").open(encoding="utf-8")))
    reasons = {row["run"]: row["reason"] for row in rows}
    assert "other noise" in reasons["64"] and "other inputs" in reasons["128"]
    assert {row["verdict"] for row in rows} == {"base", "not ranked"}
    assert reasons["32"] and "other" not in reasons["32"]
    assert next(row for row in rows if row["run"] == "32")["paired_by"] == "step"
    assert not next(row for row in rows if row["run"] == "128")["paired_by"]


def test_the_page_opens_alone_and_has_no_empty_parts(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert 'id="loss_paired"' in page and 'id="grids"' not in page and 'id="val_loss"' not in page
    assert "lower at step 1" in page
    assert not re.search(r'(?:src|href)="https?:', page)


def test_families_in_folders_of_their_own_make_a_page_over_them(tmp_path):
    for family in ("GR 1.02", "GR INF"):
        write_study(tmp_path / "in" / family)
    assert main(["--kohya", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    links = re.findall(r'<h2 id="c\d"><a href="([^"]+)"', page)
    assert len(links) == 2 and all((tmp_path / "out" / link).is_file() for link in links)
    assert len(list(csv.DictReader((tmp_path / "out" / "runs.csv").open()))) == 10


def test_newer_logs_give_d_from_the_schedule_in_the_settings(tmp_path):
    d = growing_d(100, 1.06, 1e-4)
    write_run(tmp_path / "logs" / "8", noise(1, 100), d, tags="2026")
    write_settings(tmp_path / "configs" / "8.json")
    run = by_label(tmp_path)["8"]
    assert run.growth.last == pytest.approx(1e-4, rel=1e-4)
    assert run.growth.factor == pytest.approx(1.06, rel=1e-4)


def test_newer_logs_without_settings_say_that_d_cant_be_told(tmp_path):
    write_run(tmp_path / "8", noise(1, 100), growing_d(100, 1.06, 1e-4), tags="2026")
    run = by_label(tmp_path)["8"]
    assert np.isnan(run.growth.last) and any("d can't be told" in note for note in run.notes)


def test_a_run_in_two_files_is_one_run(tmp_path):
    loss, d = noise(1, 100), growing_d(100, 1.06, 1e-4)
    write_run(tmp_path / "a", loss[:60], d[:60], total=100)
    write_run(tmp_path / "a", loss[60:], d[60:], first=61, total=100)
    run = by_label(tmp_path)["a"]
    assert run.curve.steps.tolist() == list(range(1, 101))
    assert run.curve.loss == pytest.approx(loss) and run.status == "complete"


def test_a_restart_replaces_what_it_repeats_and_says_so(tmp_path):
    loss, d = noise(1, 100), growing_d(100, 1.06, 1e-4)
    write_run(tmp_path / "a", noise(9, 60), d[:60], total=100, started=1e9)
    write_run(tmp_path / "a", loss[40:], d[40:], first=41, total=100, started=2e9)
    run = by_label(tmp_path)["a"]
    assert run.curve.loss[40:] == pytest.approx(loss[40:])
    assert any("starts again at step 41" in note for note in run.notes)


def test_an_interrupted_run_and_its_repeat_in_one_folder_are_told_apart(tmp_path):
    loss, d = noise(1, 100), growing_d(100, 1.06, 1e-4)
    write_run(tmp_path / "a", loss, d, started=1e9)
    first = next((tmp_path / "a").iterdir())
    first.rename(first.with_name("events.out.tfevents.0.first"))
    write_run(tmp_path / "a", noise(2, 100), d, started=2e9)
    assert set(by_label(tmp_path)) == {"a", "a (2)"}


def test_nan_is_named_and_left_out(tmp_path):
    loss = noise(1, 100)
    loss[50:53] = np.nan
    write_run(tmp_path / "a", loss, growing_d(100, 1.06, 1e-4))
    run = by_label(tmp_path)["a"]
    assert len(run.curve.loss) == 97
    assert any("not a number in 3 steps, first in step 51" in note for note in run.notes)


def test_a_log_that_ends_too_early_is_not_complete(tmp_path):
    loss, d = noise(1, 60), growing_d(60, 1.06, 1e-4)
    write_run(tmp_path / "told" / "1", loss, d, total=100)
    write_settings(tmp_path / "told" / "1.json", epoch=10)
    write_run(tmp_path / "untold" / "1", loss, d, total=100)
    notes = {run.place.group: run for run in load_logs(tmp_path).runs}
    assert {run.status for run in notes.values()} == {"unfinished"}
    assert any("epoch 7 of 10" in note for note in notes[("told",)].notes)


def test_a_hundred_runs_are_sorted_within_a_few_seconds(tmp_path):
    path = write_run(tmp_path / "0", noise(1, 60), growing_d(60, 1.06, 1e-4))
    content = path.read_bytes()
    for number in range(1, 100):
        (tmp_path / str(number)).mkdir()
        copy = tmp_path / str(number) / f"events.out.tfevents.{number}.x"
        copy.write_bytes(content[: len(content) - 100 * (number % 3)])
    one = only(tmp_path)
    assert len(one.runs) == 100 and {run.member.stream for run in one.runs} == {1}
    assert [run.label for run in one.runs[1:4]] == ["1", "2", "3"]


def test_foreign_and_empty_files_are_named_beside_good_ones(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    write_run(tmp_path / "good", noise(1, 50), growing_d(50, 1.06, 1e-4))
    with SummaryWriter(str(tmp_path / "other")) as writer:
        writer.add_scalar("train/accuracy", 0.5, 1)
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "events.out.tfevents.9.x").write_bytes(b"no records in here" * 9)
    logs = load_logs(tmp_path)
    assert [run.label for run in logs.runs] == ["good"]
    assert any("train/accuracy" in line for line in logs.left_out)
    assert any("junk" in line and "damaged" in line for line in logs.left_out)


@pytest.mark.parametrize("kind", ["missing", "empty", "foreign"])
def test_a_folder_without_kohyas_logs_is_refused_by_name(tmp_path, kind, capsys):
    folder = tmp_path / "logs"
    if kind != "missing":
        folder.mkdir()
    if kind == "foreign":
        (folder / "events.out.tfevents.1.x").write_bytes(b"text, not records" * 9)
    assert main(["--kohya", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert str(folder) in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_one_run_alone_with_a_hostile_name_gives_a_report_without_a_verdict(tmp_path, capsys):
    hostile = "<script>alert(1)<"
    write_run(tmp_path / "in" / hostile, noise(1, 50), growing_d(50, 1.06, 1e-4))
    write_settings(tmp_path / "in" / f"{hostile}.json", optimizer="<b>x")
    assert main(["--kohya", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    sentence, path = capsys.readouterr().out.splitlines()
    assert sentence.endswith("no losses can be paired.")
    assert path == str(tmp_path / "out" / "index.html")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert f"<h1>{sentence}</h1>" in page
    assert "<script>alert" not in page and "Which value is better" in page


def test_damaged_settings_are_said_and_stop_nothing(tmp_path):
    write_study(tmp_path)
    (tmp_path / "configs" / "32.json").write_text("{", encoding="utf-8")
    shutil.rmtree(tmp_path / "logs" / "64")
    runs = by_label(tmp_path)
    assert any("not complete JSON" in note for note in runs["32"].notes)


def test_kohyas_own_folders_are_seen_through(tmp_path):
    d = growing_d(50, 1.06, 1e-4)
    write_run(tmp_path / "logs" / "20230813121606" / "network_train", noise(1, 50), d)
    assert set(by_label(tmp_path)) == {"20230813121606"}


def test_the_schedule_of_the_tests_is_kohyas():
    assert cosine(1100)[0] == pytest.approx(0.9999979610)  # lr/unet of the guide's first row


def test_out_without_kohya_is_refused(tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main([str(tmp_path), "--out", str(tmp_path)])
    assert stopped.value.code == 2


def test_load_refuses_what_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="is not a folder"):
        load_logs(tmp_path / "file")


def test_the_two_base_runs_make_the_headline(report):
    page = (report / "index.html").read_text(encoding="utf-8")
    assert "Your base runs differ by 5.0 % before anything was learned" in page


def words(folder):
    one = only(folder)
    return words_of(one, judge(one.sweep)).sentence, " ".join(one.findings)


def test_a_d_that_never_leaves_its_start_is_told_first(tmp_path):
    write_run(tmp_path / "bf16", noise(1, 100), growing_d(100, 1.06, 1e-4), started=1e9)
    write_run(tmp_path / "fp16", noise(1, 100), np.full(100, 1e-6), started=2e9)
    sentence, findings = words(tmp_path)
    assert sentence == "fp16 learned nothing: d never left its start."
    assert "d never left 1e-06, so nothing was learned: fp16." in findings
    assert "without a limit" not in findings


def test_a_slow_stretch_of_an_unlimited_run_is_no_limit():
    d = np.r_[1e-6, 1e-6 * 1.6 ** np.arange(1, 12), 1e-6 * 1.6**11 * 1.001 ** np.arange(1, 40)]
    assert np.isnan(measure_growth(np.arange(1, len(d) + 1), d).factor)


def test_a_setting_that_may_change_the_first_loss_is_paired_only_from_one_start(tmp_path):
    d = growing_d(100, 1.06, 1e-4)
    for label, factor in (("2", 1.0), ("1", 0.95), ("3", 1.001)):
        started = 1e9 + 1e3 * (label != "2")
        write_run(tmp_path / "logs" / label, noise(1, 100) * factor, d, started=started)
        write_settings(tmp_path / "configs" / f"{label}.json", clip_skip=int(label))
    one = only(tmp_path)
    assert one.sweep.parameter == "model.clip_skip" and one.base.label == "2"
    assert paired(one) == {"3"}
    assert "The setting itself may change the first loss" in " ".join(one.findings)


def paired(one):
    """The values whose losses are compared with the base's step by step."""
    values = judge(one.sweep).values
    return {v.label for v in values if v.paired is not None and v.paired.unit == "step"}


@pytest.mark.parametrize("same", [True, False])
def test_runs_on_two_checkpoints_are_never_paired(tmp_path, same):
    for number, name in enumerate(("a", "b")):
        d = growing_d(100, 1.06, 1e-4)
        write_run(tmp_path / "logs" / name, noise(1, 100), d, started=1e9 + number)
        path = tmp_path / "configs" / f"{name}.json"
        checkpoint = f"/models/{'a' if same else name}.safetensors"
        write_settings(path, pretrained_model_name_or_path=checkpoint)
    assert paired(only(tmp_path)) == ({"b"} if same else set())


def test_reweighted_noise_is_not_called_other_noise(tmp_path):
    loss, d = noise(1, 200), growing_d(200, 1.06, 1e-4)
    weights = np.random.default_rng(5).uniform(0.05, 1, 200)
    write_run(tmp_path / "none", loss, d, started=1e9)
    write_run(tmp_path / "5", loss * weights, d, started=2e9)
    _, findings = words(tmp_path)
    assert "5 saw the noise of none with other weights" in findings
    assert "share the noise" not in findings


def test_the_same_noise_with_images_in_another_order_is_told_as_such(tmp_path):
    loss, d = noise(1, 200), growing_d(200, 1.06, 1e-4)
    other = loss * np.random.default_rng(6).lognormal(0, 0.12, 200)
    write_run(tmp_path / "192", loss, d, started=1e9)
    write_run(tmp_path / "32", other, d, started=2e9)
    write_run(tmp_path / "64", noise(9, 200), d, started=3e9)
    _, findings = words(tmp_path)
    assert re.search(r"32 \(0\.9\d\) saw the noise of 192 with the images in another", findings)
    assert re.search(r"64 \(\S+\) doesn't share the noise of 192", findings)


def test_settings_in_a_folder_of_another_name_are_found_by_what_it_holds(tmp_path):
    for family, dims in (("GR INF", "32 64"), ("GR 1.02", "8 16")):
        for number, dim in enumerate(dims.split()):
            folder = tmp_path / "Rank" / "logs" / family / dim
            write_run(folder, noise(1, 50), growing_d(50, 1.06, 1e-4), started=1e9 + number)
    for family, dims in (("GR \u221e", "32 64"), ("GR 1.02", "8 16")):
        for dim in dims.split():
            path = tmp_path / "Rank" / "configs" / family / f"{dim}.json"
            write_settings(path, network_dim=int(dim))
    dims = {
        label: run.settings.flat.get("network.dim") for label, run in by_label(tmp_path).items()
    }
    assert dims == {label: label for label in ("32", "64", "8", "16")}


def test_a_run_whose_rate_fell_to_zero_is_complete_whatever_its_settings_say(tmp_path):
    write_run(tmp_path / "1", noise(1, 70), growing_d(70, 1.06, 1e-4))
    write_settings(tmp_path / "1.json", epoch=100)
    assert by_label(tmp_path)["1"].status == "complete"


@pytest.mark.parametrize(
    ("label", "value"),
    [("0.9-0.99", "0.9-0.99"), ("0.9_0.99", "0.9_0.99"), ("3_13.08", "3"), ("a 2023-08-17", "a")],
)
def test_a_date_behind_a_value_is_told_from_a_second_number(label, value):
    assert LogFolder((), label, ()).value == value


def test_runs_of_other_lengths_are_not_paired(tmp_path):
    d = growing_d(300, 1.06, 1e-4)
    write_run(tmp_path / "100", noise(1, 100), d[:100], started=1e9)
    write_run(tmp_path / "300", noise(1, 300), d, started=2e9)
    sentence, findings = words(tmp_path)
    assert "Other lengths than 100 with its 100 steps: 300 (300)." in findings
    assert "Training loss" not in sentence


def test_logs_that_recur_are_told_once_over_all_comparisons(tmp_path):
    for family in ("GR 1.02", "GR INF"):
        write_study(tmp_path / "in" / family)
    first, second = (tmp_path / "in" / f / "logs" / "32" for f in ("GR 1.02", "GR INF"))
    shutil.rmtree(second)
    shutil.copytree(first, second)
    assert main(["--kohya", str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "The log of 32 stands in 2 comparisons" in page
    assert page.count("split into groups of inputs: A with") == 1


def test_a_log_whose_epochs_are_counted_as_0_is_read(tmp_path):
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in (1, 2, 3):
            writer.add_scalar("loss/current", 0.1, step, step)
        writer.add_scalar("loss/epoch", 0.1, 0, 4)
    (run,) = load_logs(tmp_path).runs
    assert run.series.epochs == 1


@pytest.mark.parametrize("key", ["schedule.warmup_steps", "optimizer.lr", "schedule.power"])
def test_a_setting_that_is_no_number_tells_no_schedule(key):
    flat = {"optimizer.lr": "1", "schedule.name": "cosine", key: "x"}
    assert schedule_of(RunSettings(flat), np.arange(3), 3) is None
