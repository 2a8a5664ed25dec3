"""The readers that the fuzzer attacks, each called as the commands call it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from reliability.fuzz import Target

CONF = Path(__file__).resolve().parents[1] / "conf"


def targets(seeds: Mapping[str, tuple[bytes, ...]], folder: Path) -> list[Target]:
    """Every reader with its seeds.

    Args:
        seeds: Of tests/corpora/seeds.json.
        folder: Where files are made that serve as seeds.
    """
    return [
        Target("prompt", seeds["prompt"], _prompt, 4),
        Target("wildcard file", seeds["wildcard file"], _wildcard, 1),
        Target("caption", seeds["caption"], _caption, 2),
        Target("metadata.jsonl", seeds["metadata.jsonl"], _metadata_jsonl, 1),
        Target("PNG parameters", seeds["png parameters"], _parameters, 2),
        Target("PNG file", _png_files(seeds["png parameters"]), _png, 1),
        Target("image of a data folder", _png_files(seeds["caption"]), _image, 0.5),
        Target("overrides", seeds["overrides"], _override, 1),
        Target("kohya's JSON", seeds["kohya json"], _importer("x.json"), 2),
        Target("kohya's TOML", seeds["kohya toml"], _importer("x.toml"), 1),
        Target("LoRA file, imported", _lora_files(), _importer("x.safetensors"), 0.5),
        Target("LoRA file", _lora_files(), _lora, 1),
        Target("checkpoint header", _lora_files(), _checkpoint, 0.5),
        Target("event file", _event_files(folder), _events, 1),
        Target("sweep.json", seeds["sweep.json"], _run_file("sweep.json"), 1),
        Target("run.json", seeds["run.json"], _run_file("base/run.json"), 0.7),
        Target("metrics.csv", seeds["metrics.csv"], _run_file("base/metrics.csv"), 0.7),
        Target("held_out.csv", seeds["held_out.csv"], _run_file("base/held_out.csv"), 0.7),
        Target("scores", seeds["image_scores.json"], _run_file("base/image_scores.json"), 0.7),
        Target("config.yaml", seeds["config.yaml"], _run_file("base/config.yaml"), 0.7),
        Target("report", seeds["report text"], _report, 0.004, 180.0),
    ]  # fmt: skip


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _prompt(data: bytes, folder: Path) -> None:
    from lora_lab.prompts import edited_texts, expand_choices, parse_prompt
    from lora_lab.prompts.composition import split_composition
    from lora_lab.prompts.networks import take_networks

    text, _ = take_networks(expand_choices(_text(data), 1))
    for part in split_composition(text):
        for phase in edited_texts(part.text, 8)[:8]:
            parse_prompt(phase.text)


def _wildcard(data: bytes, folder: Path) -> None:
    from lora_lab.prompts import Wildcards, expand_choices

    (folder / "color.txt").write_bytes(data)
    expand_choices("__color__ and __color__", 3, Wildcards(folder))


def _caption(data: bytes, folder: Path) -> None:
    from lora_lab.data.captions import read_caption

    (folder / "a.txt").write_bytes(data)
    read_caption(folder / "a.png", ".txt", "person")


def _metadata_jsonl(data: bytes, folder: Path) -> None:
    from lora_lab.data.metadata_jsonl import read_metadata

    (folder / "00.png").touch()
    (folder / "metadata.jsonl").write_bytes(data)
    read_metadata(folder)


def _parameters(data: bytes, folder: Path) -> None:
    from lora_lab.images.png_info import parse_parameters

    parse_parameters(_text(data))


def _png_files(texts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Small PNG files with each text as their parameters."""
    import io

    files = []
    for text in texts:
        info = PngImagePlugin.PngInfo()
        info.add_itxt("parameters", _text(text))
        buffer = io.BytesIO()
        Image.fromarray(np.full((16, 16, 3), 128, np.uint8)).save(buffer, "png", pnginfo=info)
        files.append(buffer.getvalue())
    return tuple(files)


def _png(data: bytes, folder: Path) -> None:
    from lora_lab.images.png_info import read_parameters, read_recipe

    path = folder / "a.png"
    path.write_bytes(data)
    read_parameters(path)
    read_recipe(path)


def _image(data: bytes, folder: Path) -> None:
    from lora_lab.data.images import open_image

    path = folder / "a.png"
    path.write_bytes(data)
    open_image(path)


def _override(data: bytes, folder: Path) -> None:
    from lora_lab.cli.messages import explain
    from lora_lab.cli.quoting import quote_texts
    from lora_lab.config.train import TrainConfig

    arguments = [_text(data)]
    quote_texts(arguments, TrainConfig)
    quote_texts(["-m", *arguments], TrainConfig)
    explain([CONF], TrainConfig, arguments)


def _importer(name: str) -> Callable[[bytes, Path], None]:
    def read(data: bytes, folder: Path) -> None:
        from lora_lab.kohya.__main__ import main

        (folder / name).write_bytes(data)
        out = folder / "experiment" / "x.yaml"
        assert main(["import", str(folder / name), "--out", str(out)]) in (0, 1, 2)
        shutil.rmtree(out.parent, ignore_errors=True)

    return read


def _lora_files() -> tuple[bytes, ...]:
    """A LoRA of one module, with metadata, and one without anything."""
    key = "lora_unet_mid_block_attentions_0_proj_in"
    tensors = {
        f"{key}.lora_down.weight": torch.ones(2, 8),
        f"{key}.lora_up.weight": torch.ones(8, 2),
        f"{key}.alpha": torch.tensor(1.0),
    }
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": "2",
        "ss_network_args": '{"conv_dim": "4"}',
        "ss_optimizer": "torch.optim.adamw.AdamW(betas=(0.9, 0.99))",
        "ss_learning_rate": "1e-4",
        "ss_num_epochs": "3",
        "ss_tag_frequency": '{"1_a": {"a": 3}}',
    }
    return save(tensors, metadata), save({}), save(tensors)


def _lora(data: bytes, folder: Path) -> None:
    from lora_lab.lora_file import lora_hashes, read_lora
    from lora_lab.lora_file.layouts import layer_changes

    path = folder / "a.safetensors"
    path.write_bytes(data)
    tensors, metadata = read_lora(path)
    layer_changes(tensors, str(path))
    lora_hashes(tensors, metadata)


def _checkpoint(data: bytes, folder: Path) -> None:
    from lora_lab.checkpoint.weight_files import read_header

    path = folder / "a.safetensors"
    path.write_bytes(data)
    read_header(path)


def _event_files(folder: Path) -> tuple[bytes, ...]:
    from kohya_logs import growing_d, noise, write_run

    written = write_run(folder / "log", noise(1, 12), growing_d(12, 1.02, 1e-3))
    return (written.read_bytes(),)


def _events(data: bytes, folder: Path) -> None:
    from lora_lab.study.kohya_logs.events import read_events

    path = folder / "events.out.tfevents.1.x"
    path.write_bytes(data)
    read_events(path)


_FILES = {
    "sweep.json": json.dumps(
        {
            "parameter": "network.dim",
            "values": ["2"],
            "base_value": "16",
            "overrides": [],
            "runs": [{"name": "base", "folder": "base", "role": "base", "value": "16", "seed": 1}],
        }
    ).encode(),
    "base/run.json": b'{"status": "complete", "seed": 1}',
    "base/metrics.csv": b"step,loss/step\n1,0.1\n",
    "base/config.yaml": b"seed: 1\n",
}


def _run_file(name: str) -> Callable[[bytes, Path], None]:
    """Reads a sweep of one run in which one file is hostile."""

    def read(data: bytes, folder: Path) -> None:
        from lora_lab.study.read.load import load_sweep

        (folder / "base").mkdir(exist_ok=True)
        for file, content in {**_FILES, name: data}.items():
            (folder / file).write_bytes(content)
        load_sweep(folder)

    return read


def _report(data: bytes, folder: Path) -> None:
    """A whole report whose values, names and errors hold a hostile text."""
    from lora_lab.study.report.build import build_report
    from study_sweep_builder import FakeRun, SweepBuilder

    shutil.rmtree(folder / "sweep", ignore_errors=True)
    text = _text(data)
    sweep = SweepBuilder(folder / "sweep").base(2)
    sweep.runs.append(FakeRun(text[:200] or "x", name="network.dim=2"))
    sweep.runs.append(FakeRun("8", name="network.dim=8", status="failed", error=text))
    sweep.write()
    build_report(folder / "sweep")
    page = (folder / "sweep" / "report" / "index.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "onerror=alert" not in page.replace("&gt;", "")
