# The shop under gunicorn. docker-compose.yml says what it needs around it; no secret enters the image.

FROM python:3.14-slim

WORKDIR /srv

# Names alone: their versions, those of all that they need, and the hashes are in requirements.lock. pip takes hashes
# from a constraint file since 26.1, which this Python brings along.
COPY requirements.lock .
RUN pip install --no-cache-dir --only-binary=:all: --require-hashes --constraint=requirements.lock \
    defusedxml flask gunicorn httpx2 msgpack numpy orjson "psycopg[binary]" pydantic pydantic-settings sqlalchemy \
    opentelemetry-exporter-otlp-proto-http opentelemetry-instrumentation-flask opentelemetry-instrumentation-redis \
    opentelemetry-instrumentation-sqlalchemy opentelemetry-sdk prometheus-client pyyaml redis

COPY labs/shop shop

RUN useradd --system shop
USER shop

ENV PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["gunicorn", "shop:create_app()", "--bind=0.0.0.0:8000", "--worker-class=gthread", "--workers=2", "--threads=8", \
    "--no-control-socket", "--access-logfile=-"]
