# eravane on the CPU: `docker build -t eravane .`, then
# `docker run --rm -v "$PWD:/srv/eravane" eravane run DATA --out runs/first`.
FROM python:3.13-slim-trixie
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /opt/eravane
COPY constraints constraints
RUN grep '^torch==' constraints/python3.13.txt | sed 's/$/+cpu/' > /tmp/torch.txt && \
    pip install --no-cache-dir --no-deps --extra-index-url https://download.pytorch.org/whl/cpu -r /tmp/torch.txt
COPY . .
RUN pip install --no-cache-dir --constraint constraints/python3.13.txt '.[cpu]' && useradd --create-home --uid 10001 eravane
USER 10001
WORKDIR /srv/eravane
ENTRYPOINT ["eravane"]
