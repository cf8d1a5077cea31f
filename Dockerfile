# Trains and searches, with one or more GPUs or none:
#
#   docker build --tag crosswalk .
#   mkdir -p runs
#   docker run --rm --gpus all --shm-size=8g --user "$(id -u)" \
#     --volume /datasets:/datasets:ro --volume "$PWD/runs:/srv/crosswalk/runs" \
#     crosswalk train method=rde data=cuhk_pedes data.root=/datasets
#
# --shm-size: loader workers hand batches on in /dev/shm, of which a container gets 64 MB if nothing is
# said; training refuses to begin with too little, and says how much it needs. torch brings CUDA along:
# the machine needs a driver and NVIDIA's container toolkit, the image nothing more.
FROM python:3.12-slim

WORKDIR /source
COPY . .
# hadolint ignore=DL3013  # the constraints pin the versions
RUN PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
    pip install --no-cache-dir ".[serve,export]"

# any user may write here, whatever --user says: runs, caches, weights that are downloaded
WORKDIR /srv/crosswalk
ENV HOME=/srv/crosswalk USER=crosswalk
RUN chmod 1777 /srv/crosswalk
USER 1000

ENTRYPOINT ["crosswalk"]
CMD ["--help"]
