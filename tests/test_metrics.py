"""Image metrics: scores against independent computations, encoders from folders, the store."""

import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.multimodal import CLIPScore
from transformers import Dinov2Config, Dinov2Model
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

from lora_lab.checkpoint.embedded import locate
from lora_lab.errors import LabError
from lora_lab.metrics.embedding_store import EmbeddingStore, content_key
from lora_lab.metrics.encoders import load_clip, load_dino
from lora_lab.metrics.face import FaceEncoder, load_face
from lora_lab.metrics.image_scores import class_words
from lora_lab.metrics.scores import departure, diversity, identity, prompt_agreement, vendi

PERSON = locate("embedded:person") / "train"


def unit(*rows):
    return torch.nn.functional.normalize(torch.tensor(rows, dtype=torch.float32), dim=1)


def picture(colour, size=(64, 64)):
    return Image.new("RGB", size, colour)


@pytest.fixture(scope="module")
def clip():
    return load_clip("embedded:pocket-clip")


def test_identity_is_the_mean_cosine_to_the_training_images():
    references = unit([1, 0], [0, 1])
    assert identity(unit([1, 0], [1, 1]), references).tolist() == pytest.approx(
        [0.5, math.sqrt(0.5)]
    )


def test_a_picture_without_a_face_has_no_score_and_spoils_none():
    faceless = torch.tensor([[math.nan, math.nan]])
    scores = identity(torch.cat([unit([1, 0]), faceless]), torch.cat([unit([1, 0]), faceless]))
    assert scores[0] == pytest.approx(1.0) and math.isnan(scores[1])
    assert identity(unit([1, 0]), faceless).isnan().all()


def test_diversity_is_the_mean_distance_over_pairs():
    assert diversity(unit([1, 0], [0, 1], [1, 0])) == pytest.approx(2 / 3)
    assert math.isnan(diversity(unit([1, 0])))


@pytest.mark.parametrize("count", [1, 3])
def test_vendi_counts_images_that_have_nothing_in_common(count):
    assert vendi(torch.eye(4)[:count]) == pytest.approx(count)


def test_vendi_of_equal_images_is_one():
    assert vendi(unit([1, 2], [1, 2], [1, 2])) == pytest.approx(1.0, abs=1e-4)


def test_departure_is_zero_for_the_same_image():
    assert departure(unit([1, 2], [1, 0]), unit([1, 2], [0, 1])).tolist() == pytest.approx(
        [0, 1], abs=1e-6
    )


def test_the_prompt_score_is_torchmetrics_clip_score(clip):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(2)]
    texts = ["portrait of a woman, smiling", "portrait of a man, red hoodie"]

    class Processor:
        tokenizer = clip.tokenizer

        def __call__(self, text=None, images=None, **_):
            if text is not None:
                return clip.tokenizer(text, padding=True, return_tensors="pt")
            pictures = [Image.fromarray(i.permute(1, 2, 0).numpy()) for i in images]
            return clip.processor(pictures, return_tensors="pt")

    class Model(torch.nn.Module):
        """Vectors as transformers 4 returned them, which torchmetrics 1.9 expects."""

        config = clip.model.config

        def get_image_features(self, pixels):
            return clip.model.get_image_features(pixels).pooler_output

        def get_text_features(self, ids, mask):
            return clip.model.get_text_features(ids, mask).pooler_output

    ours = prompt_agreement(clip.embed_images(images), clip.embed_texts(texts))
    for image, text, score in zip(images, texts, ours, strict=True):
        metric = CLIPScore(model_name_or_path=lambda: (Model(), Processor()))
        pixels = torch.from_numpy(np.asarray(image)).permute(2, 0, 1)
        assert float(metric(pixels, text)) == pytest.approx(max(0.0, 100 * float(score)), abs=0.05)


def test_pocket_clip_tells_a_matching_prompt_from_another(clip):
    image = Image.open(next(iter(sorted(PERSON.glob("*/01.png"))))).convert("RGB")
    caption = next(iter(sorted(PERSON.glob("*/01.txt")))).read_text()
    texts = [caption.replace("zqx person", "person"), "portrait of a woman, purple background"]
    scores = prompt_agreement(clip.embed_images([image, image]), clip.embed_texts(texts))
    assert scores[0] > scores[1]


def test_pocket_clips_processor_is_the_one_it_was_trained_with(clip):
    pixels = clip.processor([picture("white")], return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 64, 64) and pixels.unique().tolist() == pytest.approx([1.0])


def test_dino_reads_a_local_folder(tmp_path):
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2Model(config).save_pretrained(tmp_path)
    BitImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(tmp_path)
    vectors = load_dino(str(tmp_path)).embed_images([picture("red"), picture("blue", (80, 40))])
    assert vectors.shape == (2, 16)
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0, 1.0])


def test_an_encoder_is_loaded_without_a_bar_of_its_own(capfd):
    load_clip("embedded:pocket-clip")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("load", "key"), [(load_clip, "metrics.clip"), (load_dino, "metrics.dino")]
)
def test_a_missing_model_is_told_in_one_line(load, key, tmp_path, monkeypatch):
    with pytest.raises(LabError, match=f"{key}=.*download it and set {key}=<folder>") as error:
        load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_face_identity_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(LabError, match=r"needs the package insightface.*\[face\]"):
        load_face("buffalo_l")


def test_the_largest_face_counts():
    class Face:
        def __init__(self, side, vector):
            self.bbox = (0, 0, side, side)
            self.normed_embedding = np.array(vector, np.float32)

    class Analysis:
        def get(self, pixels):
            assert pixels.shape == (512, 512, 3)
            faces = [Face(10, [1, 0]), Face(20, [0, 1])]
            return faces if pixels[0, 0, 2] == 255 else []

    vectors = FaceEncoder(Analysis(), "x").embed_images([picture("red"), picture("black")])
    assert vectors[0].tolist() == [0, 1] and vectors[1].isnan().all()


def test_the_store_encodes_an_image_once_and_knows_it_by_its_pixels(tmp_path, clip):
    class Counting:
        fingerprint = clip.fingerprint
        seen = 0

        def embed_images(self, images):
            self.seen += len(images)
            return clip.embed_images(images)

    encoder = Counting()
    first = EmbeddingStore(tmp_path, encoder).embed([picture("red"), picture("red")])
    picture("red").save(tmp_path / "a.bmp")
    again = EmbeddingStore(tmp_path, encoder)
    assert torch.equal(again.embed([Image.open(tmp_path / "a.bmp")])[0], first[0])
    assert encoder.seen == 1
    again.path.write_bytes(b"cut off")
    EmbeddingStore(tmp_path, encoder).embed([picture("red")])
    assert encoder.seen == 2
    content = bytearray(again.path.read_bytes())
    content[-4] ^= 1
    again.path.write_bytes(content)
    EmbeddingStore(tmp_path, encoder).embed([picture("red")])
    assert encoder.seen == 3


def test_another_encoder_has_a_file_of_its_own(tmp_path, clip):
    class Other:
        fingerprint = "other/../../name"

    assert EmbeddingStore(tmp_path, Other()).path.parent == tmp_path


def test_size_is_part_of_the_content():
    assert content_key(picture("red", (2, 8))) != content_key(picture("red", (4, 4)))


@pytest.mark.parametrize(
    ("subject", "words"), [("zqx person", "person"), ("zqx old man", "old man"), ("zqx", "person")]
)
def test_the_trigger_is_not_read_to_the_encoder(subject, words):
    assert class_words(subject) == words
