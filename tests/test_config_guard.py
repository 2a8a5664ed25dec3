"""What a config from elsewhere may not do: run code, read the environment, set what is Hydra's."""

import logging
import pickle

import pytest
from hydra._internal import hydra as hydra_commands
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path

from command_line import call
from lora_lab.cli.config_guard import GuardedLoader, Permissions, foreign_reference
from lora_lab.config.optimizer import PACKAGES, TABLE
from settings import CONF

GLOBAL = "# @package _global_\n"
CALLBACK = "{_target_: shutil.copyfile, src: /etc/hostname, dst: stolen}"
HANDLER = "{(): shutil.copyfile, src: /etc/hostname, dst: stolen}"
HOSTILE = {
    "callback": f"{GLOBAL}hydra: {{callbacks: {{e: {CALLBACK}}}}}",
    "callback by package": f"# @package hydra.callbacks.e\n{CALLBACK[1:-1].replace(', ', chr(10))}",
    "launcher": f"{GLOBAL}hydra: {{launcher: {CALLBACK}}}",
    "sweeper": f"{GLOBAL}hydra: {{sweeper: {CALLBACK}}}",
    "inside the launcher": f"{GLOBAL}hydra: {{launcher: {{setup: {CALLBACK}}}}}",
    "handler": f"{GLOBAL}hydra: {{job_logging: {{handlers: {{e: {HANDLER}}}}}}}",
    "Hydra's own log": f"{GLOBAL}hydra: {{hydra_logging: {{handlers: {{e: {HANDLER}}}}}}}",
    "log file": f"{GLOBAL}hydra: {{job_logging: {{handlers: {{file: {{filename: stolen}}}}}}}}",
    "run folder": f"{GLOBAL}hydra: {{run: {{dir: stolen}}}}",
    "environment of jobs": f"{GLOBAL}hydra: {{job: {{env_set: {{LD_PRELOAD: x}}}}}}",
    "environment": f"{GLOBAL}output_name: ${{oc.env:HOME}}",
    "environment of Hydra": f"{GLOBAL}output_name: ${{hydra:runtime.cwd}}",
    "environment by a node": f"{GLOBAL}output_name: ${{.hydra.runtime.cwd}}",
    "environment in a list": f"{GLOBAL}sampling: {{checkpoints: ['x/${{oc.env:HOME}}']}}",
    "environment in a choice": f"{GLOBAL}defaults: ['override /optimizer: ${{oc.env:HOME}}']",
    "a resolver with a name put together": f"{GLOBAL}output_name: ${{${{seed}}:HOME}}",
    "class elsewhere": f"{GLOBAL}optimizer: {{args: {{x: {CALLBACK}}}}}",
    "a study that sets Hydra": f"{GLOBAL}hydra: {{sweeper: {{params: {{hydra.run.dir: 'a,b'}}}}}}",
    "a study with a reference": f"{GLOBAL}hydra: {{sweeper: {{params: {{seed: '\\${{a}}'}}}}}}",
    "permission": f"{GLOBAL}allow_config_dir: true\noutput_name: ${{oc.env:HOME}}",
    "brackets": GLOBAL + "epochs: " + "[" * 100_000,
    "aliases": f"{GLOBAL}a: &a [x, x]\n"
    + "".join(f"b{n}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)),
}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working folder with a folder of configs in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs" / "experiment").mkdir(parents=True)

    def write(text, name="experiment/it.yaml"):
        path = tmp_path / "theirs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")

    return write


def left(tmp_path):
    """What stands in the working folder beside the configs."""
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "theirs")


@pytest.mark.parametrize("command", [[], ["network.dim=2,4", "-m"]])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_config_from_elsewhere_is_refused_before_it_does_anything(
    elsewhere, tmp_path, case, command
):
    if case.startswith("a study") and not command:
        command = ["seed=1", "-m"]
    elsewhere(HOSTILE[case])
    answer = call("--config-dir=theirs", "+experiment=it", *command)
    assert answer.status == 2 and left(tmp_path) == []
    assert len(answer.errors) == 1 and len(answer.errors[0]) < 500


@pytest.mark.parametrize("option", ["--config-dir=theirs", "hydra.searchpath=[file://theirs]"])
def test_another_first_config_is_refused_before_its_folders_are_searched(
    elsewhere, tmp_path, monkeypatch, option
):
    monkeypatch.syspath_prepend(tmp_path / "theirs")
    elsewhere("open('stolen', 'w')", "evil/__init__.py")
    elsewhere("hydra: {searchpath: ['pkg://evil']}\ndefaults: [train]", "first.yaml")
    answer = call(option, "-cn", "first")
    assert answer.status == 2 and left(tmp_path) == []
    assert option.startswith("hydra") or "hydra.searchpath may only be set" in answer.errors[0]


@pytest.mark.parametrize(
    "argument",
    [
        "+hydra.callbacks.e._target_=shutil.copyfile",
        "hydra.callbacks.check._target_=shutil.copyfile",
        "hydra.launcher._target_=shutil.copyfile",
        "+hydra.job_logging.handlers.e.class=logging.handlers.SocketHandler",
        "+hydra.job_logging.handlers.e.stream=ext://os.environ",
        "hydra.job_logging.handlers.console.stream=${oc.env:HOME}",
        "+optimizer.args.x._target_=torch.optim.SGD",
        "optimizer._target_=torch.optimizer.SGD",
        "optimizer._target_=os.system",
    ],
)
def test_a_class_on_the_command_line_needs_its_package_allowed(elsewhere, argument):
    answer = call("optimizer=custom", argument)
    assert answer.status == 2
    assert "add allow_packages=" in answer.errors[0] or "write the value" in answer.errors[0]


def test_an_allowed_package_may_be_named(elsewhere, tmp_path):
    seen = []
    argument = "+hydra.callbacks.e={_target_: shutil.copyfile, src: theirs/experiment/it.yaml}"
    elsewhere("x: 1")
    answer = call(
        f"{argument[:-1]}, dst: copied}}",
        "hydra.run.dir=run",
        "allow_packages=[shutil]",
        task=seen.append,
    )
    assert answer.status == 0 and len(seen) == 1 and left(tmp_path) == ["copied", "run"]


def test_an_allowed_folder_may_set_what_is_hydras(elsewhere, tmp_path):
    seen = []
    elsewhere(f"{GLOBAL}output_name: ${{oc.env:USER,me}}\nhydra: {{run: {{dir: run}}}}")
    arguments = ["--config-dir=theirs", "+experiment=it", "allow_config_dir=true"]
    assert call(*arguments, task=seen.append).status == 0
    assert left(tmp_path) == ["run"] and seen[0].output_name


def test_a_study_from_elsewhere_may_name_its_parameter(elsewhere, tmp_path):
    elsewhere(f"{GLOBAL}hydra: {{sweeper: {{params: {{network.dimm: '2,4'}}}}}}")
    answer = call("-m", "--config-dir=theirs", "+experiment=it")
    line = "network.dimm is not a setting, got {}; did you mean network.dim?"
    assert answer.errors == [line.format(2), line.format(4)]


@pytest.mark.parametrize("value", ["[a b]", "a,b;", "maybe"])
@pytest.mark.parametrize("key", ["allow_packages", "allow_config_dir"])
def test_a_permission_of_another_kind_is_refused(key, value):
    if (key, value) != ("allow_packages", "maybe"):
        answer = call(f"{key}={value}")
        assert answer.status == 2 and answer.errors[0].startswith(f"{key} must be ")


@pytest.mark.parametrize(
    "flag", ["--experimental-rerun=x", "--experimental-re=x", "--config-path=x", "-cp=x"]
)
def test_flags_that_go_around_the_checks_are_refused(elsewhere, flag):
    answer = call(flag)
    assert answer.status == 2 and answer.errors[0].startswith(("--exp", "--config-path"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${network.dim}", None),
        ("a ${.dim} b ${oc.select:model.name,null}", None),
        ("\\${oc.env:HOME}", None),
        ("\\\\${oc.env:HOME}", "${oc.env:HOME}"),
        ("${network.dim} ${oc.env:HOME}", "${oc.env:HOME}"),
        ("${oc.decode:${oc.env:HOME}}", "${oc.decode:${oc.env:HOME}"),
        ("${hydra.job.name}", "${hydra.job.name}"),
        ("${hydra}", "${hydra}"),
        ("${hydras}", None),
    ],
)
def test_a_reference_is_foreign_unless_it_is_one_to_a_setting(text, found):
    assert foreign_reference(text) == found


def test_jobs_in_other_processes_are_composed_by_the_same_loader():
    path = create_config_search_path(str(CONF))
    loader = GuardedLoader(path, permissions=Permissions(("mine",), config_dir=False))
    again = pickle.loads(pickle.dumps(loader))
    assert again.permissions == loader.permissions
    assert again.repository.permissions == loader.permissions


def test_hydra_has_its_own_loader_again_after_a_command(elsewhere):
    call("network.dim=0")
    assert hydra_commands.ConfigLoaderImpl is ConfigLoaderImpl


def test_every_optimizer_of_ours_is_of_a_package_that_may_be_named():
    for entry in TABLE.values():
        assert entry.path.startswith(tuple(f"{package}." for package in PACKAGES))


def test_help_names_what_only_the_command_line_can_allow():
    assert "allow_packages" in call("--help").out


def test_a_log_line_prints_and_has_an_end(elsewhere):
    def log_it(config):
        logging.getLogger("lora_lab").warning("a \x1b[31mred\x07 key\r%s", "x" * 100_000)

    answer = call("hydra.run.dir=run", task=log_it)
    (line,) = [text for text in answer.err.splitlines() if "red" in text]
    assert line.startswith("a ?[31mred? key xxx") and len(line) < 1100
