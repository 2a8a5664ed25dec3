"""The readers that the fuzzer attacks, each called as the commands call it."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors.torch import save

from lora_lab.errors import LabError
from reliability.fuzz import FuzzReader

CONF = Path(__file__).resolve().parents[1] / "conf"


def targets(seeds: Mapping[str, tuple[bytes, ...]], folder: Path) -> list[FuzzReader]:
    """Every reader with its seeds.

    Args:
        seeds: Of tests/corpora/seeds.json.
        folder: Where files are made that serve as seeds.
    """
    return [
        FuzzReader("prompt", seeds["prompt"], _prompt, 4),
        FuzzReader("wildcard file", seeds["wildcard file"], _wildcard, 1),
        FuzzReader("caption", seeds["caption"], _caption, 2),
        FuzzReader("metadata.jsonl", seeds["metadata.jsonl"], _metadata_jsonl, 1),
        FuzzReader("PNG parameters", seeds["png parameters"], _parameters, 2),
        FuzzReader("PNG file", _png_files(seeds["png parameters"]), _png, 1),
        FuzzReader("image of a data folder", _png_files(seeds["caption"]), _image, 0.5),
        FuzzReader("overrides", seeds["overrides"], _override, 1),
        FuzzReader("kohya's JSON", seeds["kohya json"], _importer("x.json"), 2),
        FuzzReader("kohya's TOML", seeds["kohya toml"], _importer("x.toml"), 1),
        FuzzReader("LoRA file, imported", _lora_files(), _importer("x.safetensors"), 0.5),
        FuzzReader("LoRA file", _lora_files(), _lora, 1),
        FuzzReader("checkpoint header", _lora_files(), _checkpoint, 0.5),
        FuzzReader("event file", _event_files(folder), _events, 1),
        FuzzReader("sweep.json", seeds["sweep.json"], _run_file("sweep.json"), 1),
        FuzzReader("run.json", seeds["run.json"], _run_file("base/run.json"), 0.7),
        FuzzReader("metrics.csv", seeds["metrics.csv"], _run_file("base/metrics.csv"), 0.7),
        FuzzReader("held_out.csv", seeds["held_out.csv"], _run_file("base/held_out.csv"), 0.7),
        FuzzReader("scores", seeds["image_scores.json"], _run_file("base/image_scores.json"), 0.7),
        FuzzReader("config.yaml", seeds["config.yaml"], _run_file("base/config.yaml"), 0.7),
        FuzzReader("blind answers", _blind_answers(folder), _blind(folder), 0.3),
        FuzzReader("PNG settings", _recipes(), _recipe, 1),
        FuzzReader("kohya's logs, compared", _event_files(folder), _logs, 0.5),
        FuzzReader("a checkpoint's configs", _part_configs(folder), _parts(folder), 0.2, 60.0),
        FuzzReader("metrics.csv on resume", seeds["metrics.csv"], _resumed, 0.7),
        FuzzReader("last.ckpt", _checkpoints(), _last_checkpoint, 0.3),
        FuzzReader("cached latents", _cached(folder), _latents, 0.5),
        FuzzReader("textual inversion", _inversions(), _inversion, 0.3),
        FuzzReader("report", seeds["report text"], _report, 0.004, 180.0),
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
    for change in layer_changes(tensors, str(path)).values():
        try:
            assert change.dim is None or change.scale is not None
            change.merged(torch.zeros(8, 8), 1.0)
        except ValueError:  # what LoRAMerger tells in one line
            continue
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


def _blind_answers(folder: Path) -> tuple[bytes, ...]:
    """Answers about a sweep that is made for them."""
    from blind_sweep import blind_sweep
    from lora_lab.study.read.blind import FORMAT, blind_images
    from lora_lab.study.read.load import load_sweep

    sweep = load_sweep(blind_sweep(folder / "blind"))
    left, right = (next(iter(blind_images(run).values())).key for run in sweep.runs[:2])
    answers = [{"left": left, "right": right, "choice": choice} for choice in ("left", "tie")]
    return (json.dumps({"format": FORMAT, "answers": answers}).encode(),)


def _blind(folder: Path) -> Callable[[bytes, Path], None]:
    from lora_lab.study.read.blind import read_answers, with_blind
    from lora_lab.study.read.load import load_sweep

    sweep = load_sweep(folder / "blind")

    def read(data: bytes, folder: Path) -> None:
        (folder / "answers.json").write_bytes(data)
        with_blind(sweep, read_answers(folder / "answers.json", sweep))

    return read


def _recipes() -> tuple[bytes, ...]:
    """The settings in a PNG of ours."""
    from dataclasses import asdict

    from study_sweep_builder import recipe

    return (json.dumps(asdict(recipe("simple/1"))).encode(),)


def _recipe(data: bytes, folder: Path) -> None:
    from lora_lab.images.png_info import CHUNK, parameters_text, read_recipe
    from lora_lab.sampling.pipeline import recipe_settings

    info = PngImagePlugin.PngInfo()
    info.add_itxt(CHUNK, _text(data))
    Image.new("RGB", (8, 8)).save(folder / "a.png", "png", pnginfo=info)
    recipe = read_recipe(folder / "a.png")
    if recipe is not None:
        parameters_text(recipe)
        recipe_settings(recipe)
        assert folder / f"{recipe.lora}.safetensors" == (folder / "x").with_name(
            f"{recipe.lora}.safetensors"
        )


def _logs(data: bytes, folder: Path) -> None:
    from lora_lab.study.kohya_logs.read_logs import load_logs

    (folder / "logs").mkdir(exist_ok=True)
    (folder / "logs" / "events.out.tfevents.1.x").write_bytes(data)
    load_logs(folder / "logs")


PARTS = tuple(f"{part}/config.json" for part in ("unet", "vae", "text_encoder"))


def _part_configs(folder: Path) -> tuple[bytes, ...]:
    """The configs of a checkpoint: of its parts, of its scheduler."""
    from tiny_model import make_tiny_base

    base = make_tiny_base(folder / "base")
    return tuple((base / name).read_bytes() for name in (*PARTS, "scheduler/scheduler_config.json"))


def _parts(folder: Path) -> Callable[[bytes, Path], None]:
    """Reads a checkpoint that has the hostile config in each of its parts, one after the other."""
    base = folder / "base"
    names = (*PARTS, "scheduler/scheduler_config.json")
    whole = {name: (base / name).read_bytes() for name in names}

    def read(data: bytes, folder: Path) -> None:
        from lora_lab.checkpoint.base_model import load_base

        for name in names:
            (base / name).write_bytes(data)
            try:
                loaded = load_base(str(base), parts=())
                assert loaded.latent_factor >= 1 and loaded.size_step >= 1
            except LabError:
                continue
            finally:
                (base / name).write_bytes(whole[name])

    return read


def _resumed(data: bytes, folder: Path) -> None:
    from lora_lab.training.callbacks.metrics_csv import keep_rows

    (folder / "metrics.csv").write_bytes(data)
    keep_rows(folder / "metrics.csv", 5)


def _checkpoints() -> tuple[bytes, ...]:
    """What a run goes on from, in small."""
    import io

    buffer = io.BytesIO()
    torch.save({"global_step": 3, "state_dict": {"a": torch.ones(4)}}, buffer)
    return (buffer.getvalue(),)


def _last_checkpoint(data: bytes, folder: Path) -> None:
    from lora_lab.training.trainer import check_checkpoint

    (folder / "last.ckpt").write_bytes(data)
    check_checkpoint(folder / "last.ckpt")


def _cached(folder: Path) -> tuple[bytes, ...]:
    """Latents as the cache keeps them."""
    from lora_lab.data.checked_tensors import save_checked

    path = folder / "latents.safetensors"
    save_checked({"mean": torch.zeros(4, 2, 2), "std": torch.ones(4, 2, 2)}, path)
    return (path.read_bytes(),)


def _latents(data: bytes, folder: Path) -> None:
    from lora_lab.data.images import ImageFile
    from lora_lab.data.latent_cache import read_posterior

    path = folder / "a.safetensors"
    path.write_bytes(data)
    found = read_posterior(path, ImageFile(folder / "a.png", "", (16, 16)))
    assert found is None or found.mean.shape == found.std.shape


def _inversions() -> tuple[bytes, ...]:
    """Textual inversions as A1111 and diffusers write them."""
    return save({"emb_params": torch.ones(2, 8)}), save({"<style>": torch.ones(8)})


def _inversion(data: bytes, folder: Path) -> None:
    from lora_lab.prompts.embeddings import read_embedding

    path = folder / "style.safetensors"
    path.write_bytes(data)
    read_embedding(path, 8)


def _report(data: bytes, folder: Path) -> None:
    """A whole report whose values, names and errors hold a hostile text, which must stay a text."""
    found = _active(_text(data), folder / "hostile")
    assert found == _usual(folder / "usual"), found


@cache
def _usual(folder: Path) -> Counter[str]:
    return _active("harmless", folder)


def _active(text: str, folder: Path) -> Counter[str]:
    """What can act in a report that holds a text."""
    from lora_lab.study.report.build import build_report
    from study_sweep_builder import FakeRun, SweepBuilder

    shutil.rmtree(folder, ignore_errors=True)
    sweep = SweepBuilder(folder).base(2)
    sweep.runs.append(FakeRun(text[:200] or "x", name="network.dim=2"))
    sweep.runs.append(FakeRun("8", name="network.dim=8", status="failed", error=text))
    sweep.write()
    build_report(folder)
    parser = ActiveElements()
    parser.feed((folder / "report" / "index.html").read_text(encoding="utf-8"))
    return parser.found


class ActiveElements(HTMLParser):
    """Counts the elements of a page that run or load something, and attributes that do."""

    LOADING = ("base", "embed", "frame", "iframe", "link", "meta", "object", "script", "style")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Counts one element."""
        if tag in self.LOADING:
            self.found[tag] += 1
        for name, value in attrs:
            if name.startswith("on"):
                self.found[name] += 1
            if (value or "").strip().lower().startswith(("javascript:", "http:", "//")):
                self.found[f"{name}={value}"] += 1
