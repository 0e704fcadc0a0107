# Not built or tested by us: this project's machines reach no image registry. CPU only.
#   docker build -t hmf . && docker run --rm --user $(id -u):$(id -g) -v /data:/data hmf synthesize /data/patients /data/synthetic
FROM python:3.11-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b

RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/hmf
COPY constraints.txt pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY hmf_networks hmf_networks
COPY bundle/configs bundle/configs
COPY bundle/docs bundle/docs
COPY bundle/models/model.pt bundle/models/model.json bundle/models/
# PyTorch's own index has builds without CUDA.
RUN pip install --no-cache-dir -c constraints.txt --extra-index-url https://download.pytorch.org/whl/cpu "torch==2.13.0+cpu" \
    && pip install --no-cache-dir -c constraints.txt .
ENV HOME=/tmp
ENTRYPOINT ["hmf"]
CMD ["--help"]
