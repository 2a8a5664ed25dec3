"""Which sources a finished run's key is made of."""

from lora_lab.run_folder.record import TRAINING_SOURCES, training_files


def test_each_source_is_there_and_packages_count_whole():
    files = training_files()
    names = {path.name for path in files if path.parent.name == "network"}
    assert all(path.is_file() for path in files) and len(set(files)) == len(files)
    assert len(files) > len(TRAINING_SOURCES) and {"inject.py", "flat.py"} <= names
