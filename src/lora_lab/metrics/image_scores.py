"""The metric images of a sweep: drawn from each run's LoRA, encoded, scored, written beside it.

The same prompts, seeds and noise for every run, on the checkpoint that was trained on. Images that
are there with the same recipe are not drawn again, embeddings are kept by content, and scores that
were made with the same LoRA, encoders and prompts are not made again. Several processes may score
runs of one sweep at once: the first that needs the bare base's images draws them for all.
"""

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from PIL import Image
from torch import Tensor

from lora_lab.checkpoint.base_model import BaseModel
from lora_lab.config import MetricsConfig, SamplingConfig, TrainConfig
from lora_lab.config.metrics import LIKENESS, METRICS, Against, Metric
from lora_lab.data.examples import Example
from lora_lab.data.folders import find_examples
from lora_lab.data.images import upright
from lora_lab.errors import LabError
from lora_lab.images.opening import open_picture
from lora_lab.lora_file import lora_hash, read_lora
from lora_lab.lora_file.merge import load_model
from lora_lab.metrics.embedding_store import EmbeddingStore
from lora_lab.metrics.encoders import OPTIONAL, CLIPEncoder, load_clip
from lora_lab.metrics.scores import FORMULAS, diversity, identity
from lora_lab.prompts import plain_text
from lora_lab.run_folder.image_seconds import add_seconds
from lora_lab.run_folder.locks import wait_for
from lora_lab.run_folder.record import run_name
from lora_lab.run_folder.saved_loras import RunLoRAs, find_rows
from lora_lab.run_folder.scores_file import SCORES_FILE, Anchors, read_recipe, write_scores
from lora_lab.sampling.generate import ImageRequest, draw_settings
from lora_lab.sampling.pipeline import ImageResult, ImageTask, LoRAPipeline
from lora_lab.sampling.prompt_subject import SUBJECT, trained_subject
from lora_lab.statistics.paired import Scores

log = logging.getLogger(__name__)

STORE = "embeddings"
IMAGES = "metrics"
"""Folder of the metric images in a run's images/."""
ORIGINALS = "base"
"""Folder of the bare base's images, beside the embeddings."""
PLAIN, WITH_SUBJECT = "plain", "subject"
"""Its parts: prompts without the trigger, and with it."""


@dataclass(frozen=True)
class Encoders:
    """What could be loaded; CLIP always."""

    clip: CLIPEncoder
    stores: dict[str, EmbeddingStore]
    """Name of an encoder -> its embeddings."""

    def of(self, metric: Metric) -> str:
        """Name of the encoder that a metric asks for; it may not be there."""
        return metric.encoder or next(name for name in LIKENESS if name in self.stores)


def load_encoders(config: MetricsConfig, folder: Path) -> tuple[Encoders, list[str]]:
    """Load the encoders of a config.

    Args:
        config: Which ones.
        folder: Where their embeddings are kept.

    Returns:
        The encoders, and one line for each optional one that is missing.

    Raises:
        LabError: CLIP is missing.
    """
    clip = load_clip(config.clip)
    stores = {"clip": EmbeddingStore(folder, clip)}
    problems = []
    for name, load in OPTIONAL.items():
        location = getattr(config, name)
        if location is None:
            continue
        try:
            stores[name] = EmbeddingStore(folder, load(location))
        except LabError as error:
            problems.append(str(error))
    return Encoders(clip, stores), problems


def score_sweep(folder: Path, config: TrainConfig) -> list[str]:
    """Draw and score the metric images of every complete run of a sweep.

    Args:
        folder: The sweep folder.
        config: Settings of the base run.

    Returns:
        One line for each thing that is missing: an encoder, an image.

    Raises:
        LabError: CLIP, the base checkpoint or the training images can't be read.
    """
    runs = scorable(folder)
    if not runs:
        return []
    scorer, problems = load_scorer(folder, config)
    for run in runs:
        problems += scorer.score_run(run)
    return problems


def scorable(folder: Path) -> list[RunLoRAs]:
    """The complete runs of a sweep or run folder."""
    return [run for run in find_rows(folder).runs if run.saves and not run.problem]


def load_scorer(folder: Path, config: TrainConfig) -> tuple["ImageScorer", list[str]]:
    """Load what scores the runs of a sweep.

    Args:
        folder: The sweep folder.
        config: Settings of the base run.

    Returns:
        The scorer, and one line for each thing that is missing: an optional encoder, pictures to
        measure identity by.

    Raises:
        LabError: CLIP, the base checkpoint or the training images can't be read.
    """
    encoders, problems = load_encoders(config.metrics, folder / STORE)
    scorer = ImageScorer(folder, config, encoders, subject_of(config.sampling, folder))
    if Against.HELD_OUT_IMAGES not in scorer.references:
        problems.append(
            f"identity is not measured: data.dir={config.data.dir} has no held-out images; put "
            "pictures of the subject that are not trained on into its folder held_out"
        )
    return scorer, problems


def subject_of(sampling: SamplingConfig, folder: Path) -> str:
    """`<trigger> <class>`: as configured, or as the first LoRA file of a folder's runs tells it.

    Raises:
        LabError: Neither tells it.
    """
    if sampling.subject:
        return sampling.subject
    found = (trained_subject(run.saves[-1].path) for run in scorable(folder))
    subject = next((name for name in found if name), None)
    if subject is None:
        raise LabError(
            "sampling.subject is null and no LoRA file tells it, but the metric images need it: "
            'set it, such as sampling.subject="zqx person"'
        )
    return subject


def class_words(subject: str) -> str:
    """The subject without its trigger, which no encoder knows: "zqx person" is "person"."""
    _, _, words = subject.partition(" ")
    return words.strip() or "person"


def embed_pictures(encoders: Encoders, examples: Sequence[Example]) -> dict[str, Tensor]:
    """Encoder -> embeddings of some pictures, (R, D)."""
    pictures = [upright(example.image.path) for example in examples]
    return {name: store.embed(pictures) for name, store in encoders.stores.items()}


class ImageScorer:
    """Draws and scores the images of one LoRA after the other on one checkpoint.

    Args:
        folder: The sweep folder; the bare base's own images are kept in it.
        config: Settings of the base run.
        encoders: What embeds the images.
        subject: Put in place of {subject}.

    Raises:
        LabError: The checkpoint or the training images can't be read.
    """

    def __init__(self, folder: Path, config: TrainConfig, encoders: Encoders, subject: str) -> None:
        self.folder = folder
        self.metrics = config.metrics
        self.sampling = replace(
            config.sampling, steps=self.metrics.steps, batch_size=self.metrics.draw_batch_size
        )
        self.subject = subject
        self.encoders = encoders
        self.base: BaseModel = load_model(config.model.checkpoint, config.model)
        self.pipeline = LoRAPipeline(self.base, self.sampling)
        examples = find_examples(config.data)
        self.references: dict[Against | None, dict[str, Tensor]] = {
            against: embed_pictures(encoders, parts)
            for against, parts in (
                (Against.TRAINING_IMAGES, examples.train),
                (Against.HELD_OUT_IMAGES, examples.held_out),
            )
            if parts
        }
        """What real pictures there are -> encoder -> their embeddings."""
        self._originals: dict[str, dict[ImageRequest, Image.Image]] = {}

    def score_run(self, run: RunLoRAs) -> list[str]:
        """Score the final LoRA of a run, unless that was done; return what is missing."""
        path = run.folder / SCORES_FILE
        lora = run.saves[-1].path
        began = time.perf_counter()
        try:
            recipe = self.recipe(lora)
            if read_recipe(path) == recipe:
                return []
            metrics = self.metrics
            scores, problems = self.score(
                lora, 1.0, run.folder / "images" / IMAGES, metrics.prompts, metrics.seeds
            )
            more, unplain = self.preservation(lora, run.folder / "images" / IMAGES)
        except (LabError, OSError) as error:
            return [f"{run_name(run.folder)} has no image metrics: {error}"]
        write_scores(path, recipe, scores | more, self.anchors())
        add_seconds(run.folder, "scoring", time.perf_counter() - began)
        log.info("%s: metric images drawn and scored", run_name(run.folder))
        return [f"{run_name(run.folder)}: {problem}" for problem in (*problems, *unplain)]

    def recipe(self, lora: Path) -> dict[str, object]:
        """All that the scores of a LoRA depend on."""
        references = hashlib.sha256()
        for against, vectors in self.references.items():
            references.update(f"{against}\n".encode())
            for name in sorted(vectors):
                references.update(vectors[name].numpy().tobytes())
        return {
            "lora": lora_hash(*read_lora(lora)),
            "checkpoint": [self.base.fingerprint, self.base.vae_fingerprint],
            "encoders": {n: s.encoder.fingerprint for n, s in self.encoders.stores.items()},
            "references": references.hexdigest(),
            "subject": self.subject,
            "sampling": asdict(draw_settings(self.sampling)) | {"negative": self.sampling.negative},
            "prompts": json.loads(json.dumps(asdict(self.metrics))),
        }

    def score(
        self, lora: Path, weight: float, folder: Path, prompts: Sequence[str], seeds: Sequence[int]
    ) -> tuple[dict[str, Scores], list[str]]:
        """All metrics of a LoRA's images of some prompts with the trigger.

        Args:
            lora: The LoRA file.
            weight: At which it is applied.
            folder: Where the images go.
            prompts: With {subject}.
            seeds: Image seeds of each.

        Returns:
            Metric -> (prompt, seed) -> score, and what was not drawn.
        """
        drawn, problems = self._draw(lora, weight, folder, self._requests(prompts, seeds))
        found = list(drawn)
        if not found:
            return {}, problems
        vectors = {n: s.embed(list(drawn.values())) for n, s in self.encoders.stores.items()}
        units = [(request.prompt, str(request.seed)) for request in found]
        words = [self._words(request.prompt) for request in found]
        others: dict[Against | None, dict[str, Tensor]] = {
            **self.references,
            Against.PROMPT: {"clip": self.encoders.clip.embed_texts(words)},
        }
        scores: dict[str, Scores] = {}
        for metric in METRICS:
            encoder, against = self.encoders.of(metric), metric.against
            if against is Against.EACH_OTHER:
                scores[metric.name] = {
                    (prompt, "all"): FORMULAS[metric.formula](rows)
                    for prompt, rows in _by_prompt(found, vectors[encoder]).items()
                }
            elif against in others and encoder in vectors:
                values = FORMULAS[metric.formula](vectors[encoder], others[against][encoder])
                scores[metric.name] = _by_unit(units, values)
        return scores, problems

    def draw_ahead(
        self,
        loras: Sequence[tuple[Path, float, Path]],
        prompts: Sequence[str],
        seeds: Sequence[int],
    ) -> None:
        """Draw images of several LoRAs in batches that they share; `score` finds them.

        Args:
            loras: (LoRA file, weight, folder of its images), as for `score`.
            prompts: With {subject}.
            seeds: Image seeds of each.
        """
        requests = self._requests(prompts, seeds)
        self.pipeline.draw([task for lora in loras for task in self._tasks(*lora, requests)])

    def preservation(self, lora: Path, folder: Path) -> tuple[dict[str, Scores], list[str]]:
        """All metrics of how far a LoRA's images without the trigger lie from the bare base's."""
        requests = self._requests(self.metrics.plain_prompts, self.metrics.plain_seeds)
        originals = self._draw_originals(PLAIN, requests)
        drawn, problems = self._draw(lora, 1.0, folder / "plain", requests)
        shared = [request for request in drawn if request in originals]
        if not shared:
            return {}, problems
        units = [(request.prompt, str(request.seed)) for request in shared]
        scores: dict[str, Scores] = {}
        for metric in METRICS:
            if metric.against is Against.BASE:
                store = self.encoders.stores[self.encoders.of(metric)]
                own = store.embed([drawn[request] for request in shared])
                theirs = store.embed([originals[request] for request in shared])
                scores[metric.name] = _by_unit(units, FORMULAS[metric.formula](own, theirs))
        return scores, problems

    def anchors(self) -> dict[str, Anchors]:
        """What identity is at least and at most: the bare base's, and that of real pictures.

        Returns:
            Metric -> its floor, the mean over the bare base's images of the same prompts and seeds,
            and its ceiling, the mean similarity of each held-out picture to the others.
        """
        references = self.references.get(Against.HELD_OUT_IMAGES)
        if references is None:
            return {}
        requests = self._requests(self.metrics.prompts, self.metrics.seeds)
        images = list(self._draw_originals(WITH_SUBJECT, requests).values())
        found = {}
        for metric in METRICS:
            encoder = self.encoders.of(metric)
            if metric.against is Against.HELD_OUT_IMAGES and encoder in references and images:
                store, real = self.encoders.stores[encoder], references[encoder]
                floor = identity(store.embed(images), real).nanmean()
                found[metric.name] = Anchors(float(floor), 1 - diversity(real))
        return found

    def _requests(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[ImageRequest]:
        return [
            ImageRequest(text.replace(SUBJECT, self.subject), self.sampling.negative, seed)
            for text in prompts
            for seed in seeds
        ]

    def _draw_originals(
        self, part: str, requests: list[ImageRequest]
    ) -> dict[ImageRequest, Image.Image]:
        """The bare base's images, drawn once for all runs."""
        if part not in self._originals:
            folder = self.folder / STORE / ORIGINALS
            with wait_for(folder / ".lock", "the images of the bare base"):
                drawn, _ = self._draw(None, 1.0, folder / part, requests)
            self._originals[part] = drawn
        return self._originals[part]

    def _draw(
        self, lora: Path | None, weight: float, folder: Path, requests: list[ImageRequest]
    ) -> tuple[dict[ImageRequest, Image.Image], list[str]]:
        """The images that could be drawn, and one line for each that couldn't."""
        tasks = self._tasks(lora, weight, folder, requests)
        drawn, problems = {}, []
        for task, outcome in zip(tasks, self.pipeline.draw(tasks), strict=True):
            try:
                drawn[task.request] = _read(task.path, outcome)
            except LabError as error:
                problems.append(str(error))
        return drawn, problems

    def _tasks(
        self, lora: Path | None, weight: float, folder: Path, requests: list[ImageRequest]
    ) -> list[ImageTask]:
        settings = draw_settings(self.sampling)
        files = [folder / f"{index:03d}-{r.seed}.png" for index, r in enumerate(requests)]
        return [
            ImageTask(path, request, settings, lora, weight, plain_name=True)
            for path, request in zip(files, requests, strict=True)
        ]

    def _words(self, prompt: str) -> str:
        """A prompt as an encoder should read it: no weights, no LoRA names, no trigger."""
        return plain_text(prompt.replace(self.subject, class_words(self.subject)))


def _read(path: Path, outcome: ImageResult) -> Image.Image:
    if outcome.path is None:
        raise LabError(f"image {path.name} was not drawn: {outcome.problem}")
    with open_picture(path) as image:
        return image.convert("RGB")


def _by_prompt(requests: Sequence[ImageRequest], vectors: Tensor) -> dict[str, Tensor]:
    """Prompt -> the rows of its images."""
    return {
        prompt: vectors[[request.prompt == prompt for request in requests]]
        for prompt in dict.fromkeys(request.prompt for request in requests)
    }


def _by_unit(units: Sequence[tuple[str, str]], values: Tensor) -> dict[tuple[str, str], float]:
    return dict(zip(units, values.tolist(), strict=True))
