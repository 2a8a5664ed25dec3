# LoRA Lab in a container.
#
#   docker build -t lora-lab .
#   docker run --rm -v "$PWD/runs:/lab/runs" lora-lab -m network.dim=2,8,32
#   docker run --rm --gpus all --shm-size 2g -v "$PWD:/data" -v "$PWD/runs:/lab/runs" lora-lab \
#       model=sd15 model.checkpoint=/data/base.safetensors data=folder data.dir=/data/my_person
#
# PyTorch from PyPI brings its own CUDA libraries; the host needs NVIDIA's driver and container toolkit.
FROM python:3.11-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

RUN useradd --create-home --uid 1000 lab && mkdir -p /lab/runs && chown -R lab:lab /lab
WORKDIR /lab

# The libraries first: a change of our own code leaves this layer as it is.
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src/lora_lab/__init__.py src/lora_lab/__init__.py
RUN pip install -c constraints.txt -e ".[optimizers,sde]"

COPY --chown=lab:lab src src
COPY --chown=lab:lab conf conf
COPY --chown=lab:lab train.py sample.py ./

USER lab
VOLUME ["/lab/runs"]
ENTRYPOINT ["python", "train.py"]
CMD ["--help"]
