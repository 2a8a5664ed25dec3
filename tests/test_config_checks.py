"""Wrong settings: each is refused in one line, all of them at once."""

import ast
import dataclasses
import inspect
from functools import cache

import pytest
from omegaconf import DictConfig, OmegaConf

from lora_lab.config import (
    SampleConfig,
    TrainConfig,
    check,
    check_sample,
    to_config,
    to_sample_config,
)
from lora_lab.config.convert import field_types, is_group, leaf_types, suggest, unknown_keys
from lora_lab.errors import ConfigError
from settings import composed_tree


def schemas(root: type) -> set[type]:
    """The dataclass and all that it holds."""
    return {root}.union(*(schemas(kind) for kind in field_types(root).values() if is_group(kind)))


ALL_SCHEMAS = sorted(schemas(TrainConfig) | schemas(SampleConfig), key=lambda kind: kind.__name__)


@cache
def base() -> DictConfig:
    return composed_tree()


def changed(*overrides: str) -> DictConfig:
    """The base config with other values; much faster than composing it anew."""
    merged = OmegaConf.merge(base(), OmegaConf.from_dotlist(list(overrides)))
    assert isinstance(merged, DictConfig)
    return merged


OUT_OF_RANGE = [
    ("network.dim=0", "network.dim must be >= 1, got 0"),
    ("network.alpha=0", "network.alpha must be > 0, got 0.0"),
    ("network.alpha=nan", "network.alpha must be > 0, got nan"),
    ("optimizer.lr=-1", "optimizer.lr must be from 0 to 1000000, got -1.0"),
    ("optimizer.lr=inf", "optimizer.lr must be from 0 to 1000000, got inf"),
    ("optimizer.betas=[0.9]", "optimizer.betas must be two numbers >= 0 and < 1"),
    ("optimizer.betas=[0.9,0.9,0.9]", "optimizer.betas must be 2 numbers with optimizer=dadapt_"),
    ("optimizer.betas=[0.9,1.0]", "optimizer.betas must be two numbers >= 0 and < 1"),
    ("optimizer.growth_rate=1", "optimizer.growth_rate must be > 1 or null, got 1.0"),
    ("optimizer.name=adan", "optimizer.name must be one of dadapt_adam, dadapt_adan, dadapt_lion"),
    ("optimizer.lr=0", "optimizer.lr must be > 0 with optimizer=dadapt_adam, got 0.0"),
    ("optimizer.d_coef=2", "optimizer.d_coef must be null with optimizer=dadapt_adam"),
    ("optimizer._target_=torch.optim.SGD", "optimizer._target_ must be null with optimizer=dadapt"),
    ("optimizer.d0=null", "optimizer.d0 must be set with optimizer=dadapt_adam, got null"),
    ("schedule.name=step", "schedule.name must be one of constant, linear, cosine, cosine_with"),
    ("schedule.warmup_steps=-1", "schedule.warmup_steps must be >= 0, got -1"),
    ("schedule.warmup_share=1", "schedule.warmup_share must be >= 0 and < 1, a share of the run"),
    ("schedule.cycles=0", "schedule.cycles must be >= 1, got 0"),
    ("schedule.timescale=0", "schedule.timescale must be >= 1 or null, got 0"),
    ("objective.multires_noise_discount=1", "objective.multires_noise_discount must be > 0 and <"),
    (
        "objective.multires_noise_iterations=-1",
        "objective.multires_noise_iterations must be from 0",
    ),
    ("objective.ip_noise_gamma=-1", "objective.ip_noise_gamma must be >= 0, got -1.0"),
    ("objective.loss_type=l3", "objective.loss_type must be one of l2, l1, huber, smooth_l1"),
    ("objective.huber_c=0", "objective.huber_c must be > 0 and <= 1, got 0.0"),
    ("objective.huber_schedule=x", "objective.huber_schedule must be one of constant, exponential"),
    ("objective.timestep_sampling=x", "objective.timestep_sampling must be one of uniform, logit"),
    ("objective.logit_std=0", "objective.logit_std must be > 0, got 0.0"),
    ("objective.max_timestep=0", "objective.max_timestep must be >= 1 or null, got 0"),
    ("objective.debiased_estimation=true", "objective.debiased_estimation and objective.min_snr_"),
    ("trainer.attention=flash", "trainer.attention must be one of sdpa, eager, xformers"),
    ("trainer.max_skipped_steps=-1", "trainer.max_skipped_steps must be >= 0, got -1"),
    ("trainer.lora_precision=bf16", "trainer.lora_precision must be 32 with trainer.precision=32"),
    ("data.batch_size=0", "data.batch_size must be from 1 to 10000, got 0"),
    ("data.repeats=0", "data.repeats must be from 1 to 10000 or null, got 0"),
    ("data.caption_extension=txt", "data.caption_extension must be a dot and letters"),
    ("save_every=0", "save_every must be from 0.0001 to 1, got 0.0"),
    ("save_every=1.5", "save_every must be from 0.0001 to 1, got 1.5"),
    ("trainer.threads=100000", "trainer.threads must be from 0 to 1024, got 100000"),
    ("trainer.devices=100000", "trainer.devices must be from 1 to 1024, got 100000"),
    ("save_every=1e-9", "save_every must be from 0.0001 to 1, got 1e-09"),
    ("data.repeats=1000000000", "data.repeats must be from 1 to 10000 or null, got 1000000000"),
    ("data.resolution=100000", "data.resolution must be from 8 to 4096, got 100000"),
    (
        "sampling.width=100000",
        "sampling.width must be from 8 to 4096 and a multiple of 8, got 100000",
    ),
    ("optimizer.lr=1e300", "optimizer.lr must be from 0 to 1000000, got 1e+300"),
    ("study.seeds=1000000000", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("epochs=0", "epochs must be from 1 to 1000000, got 0"),
    ("seed=-1", "seed must be from 0 to 2147483647, got -1"),
    ("output_name=../lora", "output_name must be 1 to 100 letters"),
    ("output_name=''", "output_name must be 1 to 100 letters"),
    ("trainer.precision=fp16", "trainer.precision must be one of 32-true, bf16-mixed, 16-mixed"),
    ("study.seeds=0", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.seeds=true", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.seeds=[]", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.seeds=[1,2,1]", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.seeds=[-1]", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.seeds=many", "study.seeds must be a count from 1 to 1000, or a list of"),
    ("study.max_seeds=2", "study.max_seeds must be >= the 3 of study.seeds or null, got 2; raise"),
    ("study.margin=0", "study.margin must be > 0, got 0"),
    ("sampling.width=63", "sampling.width must be from 8 to 4096 and a multiple of 8, got 63"),
    ("sampling.sampler=Foo", "sampling.sampler must be one of Euler a"),
    ("sampling.random_seeds=[1]", "sampling.random_seeds must hold one seed for each of the 9"),
]


@pytest.mark.parametrize(("override", "message"), OUT_OF_RANGE, ids=lambda item: item[:30])
def test_a_value_out_of_range_is_named_with_what_is_allowed(override, message):
    with pytest.raises(ConfigError) as caught:
        check(to_config(changed(override)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_setting_of_an_earlier_version_is_refused_with_what_became_of_it():
    earlier = OmegaConf.create({"logger": {"csv": True}})
    assert unknown_keys(earlier, TrainConfig) == [
        "logger.csv is not a setting, got True; metrics.csv is always written: leave it out"
    ]


def test_all_problems_are_told_at_once():
    config = to_config(changed("network.dim=0", "epochs=0", "sampling.steps=0"))
    with pytest.raises(ConfigError) as caught:
        check(config)
    keys = [line.split()[0] for line in str(caught.value).splitlines()]
    assert keys == ["network.dim", "sampling.steps", "epochs"]


def test_training_nothing_is_refused():
    config = to_config(changed("network.train_unet=false", "network.train_text_encoder=false"))
    with pytest.raises(ConfigError, match="nothing to train"):
        check(config)


@pytest.mark.parametrize("key", ["growth_rate=1.02", "d0=1e-6"])
def test_a_setting_that_the_optimizer_does_not_have_is_refused(key):
    with pytest.raises(ConfigError, match="must be null with optimizer=adamw, which has none"):
        check(to_config(composed_tree("optimizer=adamw", f"optimizer.{key}")))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer=schedule_free_adamw"], "schedule.name must be constant with optimizer=sche"),
        (["optimizer=custom"], "optimizer._target_ must name a class with optimizer=custom"),
        (["optimizer=dadapt_sgd", "schedule.warmup_steps=2"], "must be 0 with optimizer=dadapt_sg"),
        (["optimizer=adafactor", "optimizer.args.relative_step=true"], "optimizer.lr must be 1"),
        (["schedule.warmup_steps=2", "schedule.warmup_share=0.1"], "are both set"),
        (
            ["objective.min_timestep=9", "objective.max_timestep=9"],
            "must be < objective.max_timest",
        ),
        (["trainer.precision=16-mixed", "trainer.accelerator=cpu"], "needs a GPU"),
        (
            ["trainer.precision=16-mixed", "optimizer=adamw", "+optimizer.args.fused=true"],
            "optimizer.args.fused must be false with trainer.precision=16-mixed",
        ),
        (
            [
                "optimizer=prodigy",
                "trainer.precision=bf16-true",
                "trainer.lora_precision=bf16",
            ],
            "must be 32 with optimizer=prodigy",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(overrides, message):
    with pytest.raises(ConfigError) as caught:
        check(to_config(composed_tree(*overrides)))
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["+network.dimm=3", "++network.dimm=3"])
def test_a_forced_unknown_key_is_refused_with_the_nearest_one(override):
    with pytest.raises(ConfigError) as caught:
        to_config(composed_tree(override))
    assert str(caught.value) == "network.dimm is not a setting, got 3; did you mean network.dim?"


def test_a_whole_unknown_section_is_refused():
    with pytest.raises(ConfigError, match=r"^netwrok is not a setting"):
        to_config(composed_tree("+netwrok.dim=3"))


def test_a_value_that_must_be_set_is_named():
    with pytest.raises(ConfigError, match=r"data\.dir has no value; set data\.dir=<text>"):
        to_config(composed_tree("data=folder"))


def test_conversion_keeps_every_value():
    config = changed("network.dim=7", "optimizer.growth_rate=null")
    assert OmegaConf.create(dataclasses.asdict(to_config(config))) == config


def test_sample_wants_either_a_run_or_a_lora():
    for overrides in ([], ["run=a", "lora=b"], ["run=a", "png=b"]):
        config = to_sample_config(composed_tree(*overrides, name="sample"))
        with pytest.raises(ConfigError, match="one of run, lora and png must be set"):
            check_sample(config)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("sampling.steps=0", r"sampling\.steps must be from 1 to 1000, got 0"),
        (
            "sampling.width=300",
            r"sampling\.width must be from 8 to 4096 and a multiple of 8, got 300",
        ),
        ("sampling.axes.sampler=[PLMS]", r"sampling\.axes\.sampler must be a list of some of"),
        ("sampling.axes.guidance=[0.5]", r"sampling\.axes\.guidance must be .* >= 1"),
        ("sampling.grids.0.rows=height", r"sampling\.grids\[0\]\.rows must be one of value, step"),
        ("sampling.grids.0.columns=value", r"sampling\.grids\[0\]\.columns must differ"),
        ("sampling.grids.0.name=../x", r"sampling\.grids\[0\]\.name must be letters"),
        ("sampling.grids.1.name=simple", r"sampling\.grids\[1\]\.name must be another"),
        ("sampling.grids.0.prompts=[random]", r"prompts must be one prompt unless an axis"),
        (
            "sampling={prompts:{random:[]},random_seeds:[]}",
            r"grids\[2\]\.prompts must name a prompt, got random",
        ),
        ("sampling.picture.formats=[webp]", r"picture\.formats must be \[png\]"),
        ("columns=seed", "rows must be set where columns or pages are"),
    ],
)
def test_grids_and_axes_are_checked_before_anything_loads(override, problem):
    config = to_sample_config(composed_tree("run=a", override, name="sample"))
    with pytest.raises(ConfigError, match=problem):
        check_sample(config)


def test_the_nearest_key_is_found_in_another_section():
    assert suggest("dim", TrainConfig) == "did you mean network.dim?"
    assert suggest("network.batchsize", TrainConfig) == "did you mean data.batch_size?"


def test_far_fetched_keys_get_no_suggestion():
    assert suggest("zzz", TrainConfig) == "see --help for all settings"


@pytest.mark.parametrize("schema", ALL_SCHEMAS, ids=lambda schema: schema.__name__)
def test_settings_have_a_line_each_and_no_default(schema):
    body = ast.parse(inspect.getsource(schema)).body[0].body
    fields = [index for index, node in enumerate(body) if isinstance(node, ast.AnnAssign)]
    assert len(fields) == len(dataclasses.fields(schema))
    for index in fields:
        line = body[index + 1].value.value
        assert line.endswith(".") and "\n" not in line and len(line) <= 100
        assert body[index].value is None, "values live in conf/"


def test_every_setting_of_training_has_a_value_in_conf():
    missing = {"data.dir", "model.checkpoint"}
    values = composed_tree("model=sd15", "data=folder")
    unset = {key for key in leaf_types(TrainConfig) if OmegaConf.select(values, key) is None}
    nullable = {key for key, kind in leaf_types(TrainConfig).items() if "None" in str(kind)}
    assert unset - nullable == missing
