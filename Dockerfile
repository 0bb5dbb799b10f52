FROM python:3.12-slim AS build
WORKDIR /src
RUN python -m venv /opt/billingwatch
ENV PATH=/opt/billingwatch/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# The locks alone first: this layer is built again only when a dependency changes.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m pip install --require-hashes --only-binary :all: -r requirements/run.txt
RUN python -m venv /opt/build && /opt/build/bin/python -m pip install --require-hashes -r requirements/build.txt
COPY . .
RUN /opt/build/bin/python -m hatchling build -t wheel -d /tmp/dist \
    && python -m pip install --no-deps /tmp/dist/*.whl

FROM python:3.12-slim
RUN useradd --system --uid 10001 --home-dir /var/lib/billingwatch --create-home billingwatch
COPY --from=build /opt/billingwatch /opt/billingwatch
ENV PATH=/opt/billingwatch/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 LOG_FORMAT=json \
    BILLINGWATCH_DATA_DIR=/var/lib/billingwatch
USER billingwatch
# billingwatch.toml is read from the working folder.
WORKDIR /etc/billingwatch
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["billingwatch"]
CMD ["ingest", "--host", "0.0.0.0"]
