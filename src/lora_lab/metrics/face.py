"""Face identity by insightface, an optional extra with models of its own (not for commercial use).

Shapes: N pictures, D size of an embedding.
"""

import importlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lora_lab.errors import LabError

SIZE = 512


class FaceEncoder:
    """ArcFace (arXiv 1801.07698) of the largest face in a picture.

    Args:
        analysis: Insightface's FaceAnalysis, ready to detect.
        name: Of its model pack.
    """

    def __init__(self, analysis: Any, name: str) -> None:
        self.analysis = analysis
        self.fingerprint = f"insightface:{name}"

    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Vectors of length 1, (N, D); a row of NaN for a picture without a face."""
        vectors = [self._embed(image) for image in images]
        size = max((len(vector) for vector in vectors if vector is not None), default=1)
        rows = [np.full(size, math.nan) if vector is None else vector for vector in vectors]
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    def _embed(self, image: Image.Image) -> Any:
        picture = image.convert("RGB")
        if max(picture.size) < SIZE:  # the detector misses faces in small pictures
            factor = SIZE / max(picture.size)
            picture = picture.resize([round(side * factor) for side in picture.size])
        blue_first = np.asarray(picture)[:, :, ::-1]
        faces = self.analysis.get(blue_first)
        if not faces:
            return None
        return max(faces, key=_area).normed_embedding


def load_face(name: str) -> FaceEncoder:
    """Load insightface with a model pack.

    Args:
        name: Of the pack, such as buffalo_l.

    Raises:
        LabError: The package or its models are missing.
    """
    try:
        app = importlib.import_module("insightface.app")
    except ImportError as error:
        raise LabError(
            f"metrics.face={name} needs the package insightface ({error}); "
            'pip install -e ".[face]", or set metrics.face=null'
        ) from error
    try:
        analysis = app.FaceAnalysis(name=name, allowed_modules=["detection", "recognition"])
        analysis.prepare(ctx_id=-1, det_size=(SIZE, SIZE))
    except Exception as error:
        # Its download and its runtime raise errors of many kinds, all of which mean this.
        raise LabError(
            f"metrics.face={name} could not be loaded ({error}); put the model pack into "
            f"~/.insightface/models/{name}, or set metrics.face=null"
        ) from error
    return FaceEncoder(analysis, name)


def _area(face: Any) -> float:
    left, top, right, bottom = face.bbox
    return float((right - left) * (bottom - top))
