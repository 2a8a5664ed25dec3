"""What each setting changes by itself, and that each of the guide's studies reaches a verdict."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image

from lora_files import random_lora
from lora_lab.checkpoint.base_model import load_base
from lora_lab.cli.sweep_plan import Plan, make_plan, spelled
from lora_lab.cli.sweeper import study_of
from lora_lab.clock import Clock
from lora_lab.config import MergeConfig
from lora_lab.data.inputs import Inputs, SharedInputs
from lora_lab.lora_file import write_lora
from lora_lab.study.judge.comparable import CHANGED_BY, FINGERPRINTS, compare, parameters_of
from lora_lab.study.judge.metric_results import Verdict
from lora_lab.study.judge.verdict import judge
from lora_lab.study.read.held_out_file import ImageLosses
from lora_lab.study.read.load import Record, Run, Sweep, _flat
from settings import CONF, changed, composed_tree
from train_setup import CONFIG, train_config

DATA = CONFIG.data
STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))
SD15 = ["model=sd15", "model.checkpoint=base.safetensors", "data=folder", "data.dir=photos"]


@pytest.fixture(scope="module")
def person_with_more(tmp_path_factory, tiny_person):
    """The tiny person with images of the class, a wide image, a mask and other captions."""
    folder = tmp_path_factory.mktemp("person")
    for path in Path(tiny_person).rglob("*.*"):
        copy = folder / path.relative_to(tiny_person)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for path in [*folder.rglob("*.txt")]:
        path.with_suffix(".caption").write_text("another caption", encoding="utf-8")
    for path in folder.rglob("00.png"):
        picture = Image.open(path)
        picture.resize((64, 32)).save(path)
    for path in folder.rglob("01.png"):
        Image.new("L", (32, 32), 128).save(path.with_suffix(".mask.png"))
        path.with_suffix(".txt").write_text("zqx person\nin green\n", encoding="utf-8")
    regular = folder / "regularisation" / "1_person"
    regular.mkdir(parents=True)
    Image.new("RGB", (32, 32), "#123456").save(regular / "a.png")
    (regular / "a.txt").write_text("a person", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def shared():
    return SharedInputs()


CHANGES = {
    "data.resolution": 16,
    "data.enable_bucket": False,
    "data.bucket_reso_steps": 16,
    "data.min_bucket_reso": 32,
    "data.max_bucket_reso": 32,
    "data.bucket_no_upscale": not DATA.bucket_no_upscale,
    "data.resize_filter": "lanczos",
    "data.vae_precision": "bfloat16",
    "data.flip": True,
    "data.random_crop": True,
    "data.color_aug": True,
    "data.variants": 3,
    "data.repeats": 5,
    "data.trigger": "sks",
    "data.caption_extension": ".caption",
    "data.caption_lines": "first",
    "data.masked_loss": True,
    "data.regularization": not DATA.regularization,
    "data.batch_size": 1,
    "data.caption_dropout_rate": 0.5,
    "data.shuffle_caption": True,
    "model.merge": 0.5,
    "network.dim": 8,
    "objective.noise_offset": 0.1,
    "model.clip_skip": 1,
    "epochs": 5,
}
"""Setting -> another value than the small config's; of a merge the weight of its LoRA."""
BESIDE = {
    "data.variants": {"data.random_crop": True},
    "data.bucket_no_upscale": {"data.resolution": 64},  # above the images' 32
}
"""Setting -> what both runs have with it, so that it does something."""
ELSEWHERE = {
    *("model", "data", "trainer", "model.checkpoint", "data.dir", "data.held_out_dir"),
    *("trainer.precision", "trainer.threads", "trainer.accelerator"),
    "data.reg_dir",  # below
}
"""Whole groups, other files, and what may change the last digits of latents."""


def prints(base, folder, shared, values) -> dict[str, str]:
    config = changed(train_config(base, folder), values)
    return Inputs.load(config, shared, Clock()).fingerprints()


def test_each_setting_that_is_known_to_change_inputs_is_tried():
    assert set(CHANGED_BY) - set(CHANGES) == ELSEWHERE


@pytest.mark.parametrize("key", CHANGES)
def test_a_setting_changes_no_input_but_those_that_it_is_known_to(
    key, tiny_base, person_with_more, shared, tmp_path
):
    value, beside = CHANGES[key], dict(BESIDE.get(key, {}))
    if key == "model.merge":
        write_lora(tmp_path / "a.safetensors", random_lora(load_base(str(tiny_base))), {})
        value = [MergeConfig(str(tmp_path / "a.safetensors"), value)]
    if key == "data.regularization":
        beside["data.reg_dir"] = str(person_with_more / "regularisation")
    plain = prints(tiny_base, person_with_more, shared, beside)
    other = prints(tiny_base, person_with_more, shared, {**beside, key: value})
    differing = {name for name in FINGERPRINTS if plain[name] != other[name]}
    assert differing <= CHANGED_BY.get(key, frozenset())
    if key in CHANGED_BY:
        assert differing, f"{key} is said to change inputs, and changes none here"


def test_images_of_the_class_leave_the_held_out_images_as_they_were(
    tiny_base, person_with_more, shared
):
    plain = prints(tiny_base, person_with_more, shared, {})
    values = {"data.reg_dir": str(person_with_more / "regularisation")}
    other = prints(tiny_base, person_with_more, shared, values)
    differing = {name for name in FINGERPRINTS if plain[name] != other[name]}
    assert differing == CHANGED_BY["data.reg_dir"]


def plan_of(study: str, *base: str) -> Plan:
    """The runs of a study, composed as the sweeper does."""
    overrides = [f"+study={study}", *base]
    sweeper = composed_tree(*overrides, with_hydra=True).hydra.sweeper
    whole = {"params": sweeper.params, "together": sweeper.together}
    name = "sd15" if base else "pocket"
    found = study_of(whole, sweeper.by_model or {}, name)
    arguments = [
        *overrides,
        *(f"{key}={text}" for key, text in (found.get("params") or {}).items()),
    ]
    together = [
        {key: spelled(value) for key, value in row.items()} for row in found.get("together") or []
    ]
    parsed = OverridesParser.create().parse_overrides(arguments)
    return make_plan(parsed, lambda o: composed_tree(*o, with_hydra=True), together)


def digests(changed: frozenset[str], value: str) -> dict[str, str]:
    return {name: value if name in changed else "same" for name in FINGERPRINTS}


def scores(shift: float, rng: np.random.Generator) -> Mapping[tuple[str, str], float]:
    return {(f"c{c}", "0"): 0.5 + 0.02 * c + shift + 0.001 * rng.normal() for c in range(8)}


@pytest.mark.parametrize(
    "base", [SD15, pytest.param([], marks=pytest.mark.slow)], ids=["sd15", "pocket"]
)
@pytest.mark.parametrize("study", STUDIES)
def test_each_study_reaches_a_verdict_in_what_stays_comparable(study, base, monkeypatch):
    # The guide's checkpoints and photographs are not here.
    monkeypatch.setattr("lora_lab.cli.preflight._missing", lambda key, location: [])
    plan = plan_of(study, *base)
    keys = parameters_of(plan.parameter)
    may_change = frozenset().union(*(CHANGED_BY.get(key, frozenset()) for key in keys))
    rng = np.random.default_rng(0)
    runs = []
    for planned in plan.runs:
        effect = 0.0 if planned.is_base else 0.2
        config = _flat(asdict(planned.config))
        inputs = digests(frozenset() if planned.is_base else may_change, planned.value)
        runs.append(
            Run(
                name=planned.name,
                folder=Path(planned.name),
                value=planned.value,
                is_base=planned.is_base,
                seed=planned.config.seed,
                status="complete",
                config=config,
                record=Record(fingerprints=inputs),
                scores={
                    "held_out_loss": scores(effect, rng),
                    "identity_clip": scores(-effect, rng),
                },
            )
        )
    found = judge(Sweep(Path("s"), plan.parameter, plan.values, plan.base_value, (), tuple(runs)))
    judged = [one for one in found.values if one.verdict is not Verdict.BASE]
    assert judged
    for one in judged:
        assert one.verdict is Verdict.WORSE, one.reason
        loss = one.result("held_out_loss")
        lost = {"checkpoint", "held_out_latents"} & may_change
        assert (loss.verdict is Verdict.NOT_RANKED) == bool(lost), loss.reason
        assert bool(loss.reason) == bool(lost)


def run_of(fingerprints: dict[str, str], **config: str) -> Run:
    run = Run("r", Path("r"), "v", False, 1, "complete", config=config)
    return replace(run, record=Record(fingerprints=fingerprints))


def test_other_training_images_leave_the_held_out_loss_comparable_but_no_training_loss():
    own = digests(CHANGED_BY["data.flip"], "x")
    found = compare(run_of(own), run_of(digests(frozenset(), "")), ("data.flip",))
    assert found.ranked and found.training_changed
    found = compare(run_of(own), run_of(digests(frozenset(), "")), ("network.dim",))
    assert not found.ranked and "other latents" in found.obstacles[0]


def test_runs_of_earlier_versions_hold_one_fingerprint_of_all_latents():
    earlier = ("images", "captions", "checkpoint", "vae", "latents")
    own = {name: "x" if name == "latents" else "same" for name in earlier}
    base = dict.fromkeys(earlier, "same")
    found = compare(run_of(own), run_of(base), ("data.flip",))
    assert found.loss_changed == "data.flip changes the latents that the loss is measured on"


def test_held_out_losses_at_other_timesteps_are_not_compared():
    """What single rows lack is left out of both and is no obstacle."""

    def measured(*units: tuple[str, str]) -> Run:
        losses = ImageLosses(units=dict.fromkeys(units, 0.5))
        return replace(run_of(digests(frozenset(), "")), image_losses=losses)

    base = measured(("a", "100"), ("a", "900"), ("b", "100"), ("b", "900"))
    found = compare(measured(("a", "100"), ("b", "900")), base, ("network.dim",))
    assert not found.obstacles and not found.ranked
    assert found.loss_changed == "its held-out loss was measured at other timesteps than the base's"
    lacking = measured(("a", "100"), ("b", "100"), ("b", "900"))
    assert compare(lacking, base, ("network.dim",)).ranked
    assert compare(base, base, ("network.dim",)).ranked
