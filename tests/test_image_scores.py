"""Metric images of a sweep of the tiny model, and the choice of a checkpoint."""

import json
import shutil
from dataclasses import replace

import pytest
from PIL import Image

from lora_lab.config import MergeConfig
from lora_lab.config.metrics import Against
from lora_lab.data.inputs import SharedInputs
from lora_lab.errors import LabError
from lora_lab.lora_file import read_lora, write_lora
from lora_lab.lora_file.merge import load_model
from lora_lab.metrics.checkpoint_choice import best_of, choose
from lora_lab.metrics.image_scores import ImageScorer, load_encoders, load_scorer, score_sweep
from lora_lab.run_folder.choice_file import CHOICE_FILE, read_choice, write_choice
from lora_lab.run_folder.saved_loras import find_rows
from lora_lab.run_folder.scores_file import SCORES_FILE, read_anchors, read_scores
from train import train
from train_setup import train_config


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_base, tiny_person):
    """A sweep folder with one base run, and its settings."""
    folder = tmp_path_factory.mktemp("sweep")
    config = train_config(tiny_base, tiny_person)
    train(config, folder / "base")
    entry = {"name": "base", "folder": "base", "value": "4", "role": "base", "seed": 1}
    entry |= {"status": "complete", "reused": False, "error": None}
    record = {"parameter": "network.dim", "values": [], "base_value": "4", "runs": [entry]}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder, config


def test_every_metric_is_scored_by_prompt_and_seed(made):
    folder, config = made
    assert score_sweep(folder, config) == []
    scores, problem = read_scores(folder / "base" / SCORES_FILE)
    assert not problem
    assert {name: len(units) for name, units in scores.items()} == {
        "identity_clip": 10,
        "training_likeness": 10,
        "prompt": 10,
        "diversity": 5,
        "vendi": 5,
        "preservation": 5,
    }


def test_the_seconds_of_scoring_stand_in_run_json_and_grow_only_when_something_is_scored(made):
    folder, config = made
    (folder / "base" / SCORES_FILE).unlink(missing_ok=True)
    taken = [scoring_seconds(folder)]
    for _ in range(2):
        score_sweep(folder, config)
        taken.append(scoring_seconds(folder))
    assert taken[0] < taken[1] == taken[2]


def scoring_seconds(folder):
    facts = json.loads((folder / "base" / "run.json").read_text())
    assert facts["seconds"]["training"] > 0
    return facts["seconds"].get("scoring", 0.0)


def test_identity_is_measured_by_pictures_that_were_not_trained_on(made):
    """Other training images leave it as it is, other held-out ones don't."""
    folder, config = made
    encoders, _ = load_encoders(config.metrics, folder / "store")
    scorer = ImageScorer(folder, config, encoders, "zqx person")
    (run,) = find_rows(folder).runs
    arguments = run.saves[-1].path, 1.0, run.folder / "images" / "metrics"
    prompts = config.metrics.prompts, config.metrics.seeds
    before, _ = scorer.score(*arguments, *prompts)
    training = scorer.references[Against.TRAINING_IMAGES]
    scorer.references[Against.TRAINING_IMAGES] = {n: -v for n, v in training.items()}
    after, _ = scorer.score(*arguments, *prompts)
    assert after["identity_clip"] == before["identity_clip"]
    for unit, score in before["training_likeness"].items():
        assert after["training_likeness"][unit] == pytest.approx(-score, abs=1e-5)


def test_identity_has_the_bare_base_as_floor_and_real_pictures_as_ceiling(made):
    folder, config = made
    score_sweep(folder, config)
    anchors = read_anchors(folder / "base" / SCORES_FILE)
    assert set(anchors) == {"identity_clip"}
    encoders, _ = load_encoders(config.metrics, folder / "store")
    scorer = ImageScorer(folder, config, encoders, "zqx person")
    real = scorer.references[Against.HELD_OUT_IMAGES]["clip"]
    pairs = [float(a @ b) for i, a in enumerate(real) for b in real[:i]]
    assert anchors["identity_clip"].ceiling == pytest.approx(sum(pairs) / len(pairs), abs=1e-5)
    drawn = sorted((folder / "embeddings" / "base" / "subject").glob("*.png"))
    assert len(drawn) == 10
    bare = encoders.stores["clip"].embed([Image.open(path).convert("RGB") for path in drawn])
    assert anchors["identity_clip"].floor == pytest.approx(float((bare @ real.T).mean()), abs=1e-5)


def test_a_data_folder_without_held_out_images_has_no_identity_and_is_told(made, tmp_path):
    folder, config = made
    shutil.copytree(config.data.dir, tmp_path / "person")
    shutil.rmtree(tmp_path / "person" / "held_out")
    data = replace(config.data, dir=str(tmp_path / "person"))
    sampling = replace(config.sampling, subject="zqx person")
    scorer, problems = load_scorer(tmp_path, replace(config, data=data, sampling=sampling))
    assert problems == [
        f"identity is not measured: data.dir={tmp_path / 'person'} has no held-out images; put "
        "pictures of the subject that are not trained on into its folder held_out"
    ]
    assert scorer.anchors() == {}
    (run,) = find_rows(folder).runs
    scores, _ = scorer.score(run.saves[-1].path, 1.0, tmp_path / "images", ["a {subject}"], [1, 2])
    assert "identity_clip" not in scores and len(scores["training_likeness"]) == 2


def test_nothing_is_drawn_twice_and_a_lost_image_is_drawn_again(made):
    folder, config = made
    score_sweep(folder, config)
    path = folder / "base" / SCORES_FILE
    before = path.read_bytes()
    stamp = path.stat().st_mtime_ns
    score_sweep(folder, config)
    assert path.stat().st_mtime_ns == stamp
    path.unlink()
    image = next((folder / "base" / "images" / "metrics").glob("*.png"))
    image.unlink()
    score_sweep(folder, config)
    assert image.is_file() and path.read_bytes() == before


def test_other_prompts_are_scored_anew(made):
    folder, config = made
    metrics = replace(config.metrics, seeds=[7, 8, 9])
    score_sweep(folder, replace(config, metrics=metrics))
    assert len(read_scores(folder / "base" / SCORES_FILE)[0]["prompt"]) == 15


def test_a_missing_optional_encoder_is_told_and_the_rest_is_scored(made):
    folder, config = made
    metrics = replace(config.metrics, dino=str(folder / "nothing"))
    (problem,) = score_sweep(folder, replace(config, metrics=metrics))
    assert problem.startswith("metrics.dino=")


def test_a_missing_clip_ends_it_in_one_line(made):
    folder, config = made
    metrics = replace(config.metrics, clip=str(folder / "nothing"))
    with pytest.raises(LabError, match=r"metrics\.clip="):
        score_sweep(folder, replace(config, metrics=metrics))


def test_a_lora_that_changes_nothing_preserves_the_base_exactly(made):
    folder, config = made
    encoders, _ = load_encoders(config.metrics, folder / "store")
    scorer = ImageScorer(folder, config, encoders, "zqx person")
    (run,) = find_rows(folder).runs
    tensors, metadata = read_lora(run.saves[0].path)
    bare = {k: v * 0 if "lora_up" in k else v for k, v in tensors.items()}
    write_lora(folder / "bare.safetensors", bare, metadata)
    scores, problems = scorer.preservation(folder / "bare.safetensors", folder / "bare")
    assert not problems and list(scores) == ["preservation"]
    assert list(scores["preservation"].values()) == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_checkpoint_and_a_weight_are_chosen_and_reported_on_other_prompts(made):
    folder, config = made
    encoders, _ = load_encoders(config.metrics, folder / "store")
    scorer = ImageScorer(folder, config, encoders, "zqx person")
    (run,) = find_rows(folder).runs
    scorer.score_run(run)
    choice = choose(run, scorer)
    assert choice.step in {save.step for save in run.saves}
    assert choice.weight in {0.5, 1.0}
    assert (
        set(choice.chosen)
        == set(choice.final)
        == {"identity_clip", "training_likeness", "prompt", "diversity", "vendi"}
    )
    write_choice(run.folder / CHOICE_FILE, choice)
    assert read_choice(run.folder / CHOICE_FILE) == choice


def test_the_best_checkpoint_has_the_highest_mean_rank_and_the_first_of_equals_wins():
    candidates = [{"a": 0.1, "b": 9.0}, {"a": 0.2, "b": 8.0}, {"a": 0.3, "b": 8.5}]
    assert best_of(candidates) == (2, 0.75)
    assert best_of([{"a": 1.0}, {"a": 1.0}])[0] == 0
    with pytest.raises(LabError, match="no metric"):
        best_of([{"a": 1.0}, {"b": 1.0}])


def test_a_damaged_choice_is_none(tmp_path):
    (tmp_path / "choice.json").write_text('{"step": "x"')
    assert read_choice(tmp_path / "choice.json") is None


def test_scores_and_grids_are_drawn_by_the_base_that_was_trained_on(made):
    """Its merged LoRAs and what its UNet predicts included."""
    folder, plain = made
    lora = folder / "base" / "lora" / "lora.safetensors"
    model = replace(
        plain.model, prediction_type="v_prediction", merge=[MergeConfig(str(lora), 0.5)]
    )
    config = replace(plain, model=model)
    trained = SharedInputs().base(model)
    encoders, _ = load_encoders(config.metrics, folder / "embeddings")
    scorer = ImageScorer(folder, config, encoders, "zqx person")
    sampling = replace(config.sampling, prediction_type=model.prediction_type, merge=model.merge)
    for base in (scorer.base, load_model(model.checkpoint, sampling)):
        assert base.fingerprint == trained.fingerprint
        assert base.noise_scheduler.config["prediction_type"] == "v_prediction"
    assert trained.fingerprint != SharedInputs().base(plain.model).fingerprint
