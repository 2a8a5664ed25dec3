"""Which sources and packages a finished run's key is made of."""

from dataclasses import replace

from lora_lab.run_folder.identity import OBSERVERS, PACKAGE, training_files, versions
from settings import composed


def names() -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in training_files()}


def test_sources_are_what_training_imports_and_observers_stay_out():
    found = names()
    assert {"network/inject.py", "objective/noise.py", "text/caption_encoder.py"} <= found
    assert {"config/optimizer.py", "config/network.py", "__init__.py"} <= found
    assert not found & {"config/sampling.py", "config/study.py", "loggers/build.py"}
    assert not [name for name in found if name.startswith(("cli/", "study/", "sampling/"))]


def test_each_observer_is_there():
    missing = [
        name
        for name in OBSERVERS
        if not (PACKAGE / name).is_dir() and not (PACKAGE / name).with_suffix(".py").is_file()
    ]
    assert missing == []


def test_packages_that_take_part_are_recorded_and_others_are_not():
    plain = composed()
    assert {"python", "torch", "lightning", "diffusers", "dadaptation"} <= versions(plain).keys()
    assert not versions(plain).keys() & {"prodigyopt", "lycoris_lora", "wandb", "tensorboard"}
    prodigy = replace(plain, optimizer=replace(plain.optimizer, name="prodigy"))
    assert "prodigyopt" in versions(prodigy) and "dadaptation" not in versions(prodigy)
    loha = replace(plain, network=replace(plain.network, name="loha"))
    assert "lycoris_lora" in versions(loha)
