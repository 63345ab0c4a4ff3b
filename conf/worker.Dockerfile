# The image of a worker: Python, ecs-queue and what it requires, a user without rights, and no compiler.
#
#   pip wheel --no-deps --wheel-dir dist .
#   docker build -f conf/worker.Dockerfile -t ecs-queue-worker:1 .
#   docker run -v ./ecs_queue.cfg:/etc/ecs-queue/ecs_queue.cfg:ro -e AIRFLOW__ECS_QUEUE__BROKER_URL ecs-queue-worker:1
#
# The build's context needs only dist/ with the one wheel.
ARG PYTHON_VERSION=3.13
FROM python:${PYTHON_VERSION}-slim AS build
ARG EXTRAS=encryption,metrics
RUN python -m venv /opt/ecs-queue
COPY dist/ecs_queue-*.whl /wheels/
# The file, not the name: a package index may have another package of this name.
RUN set -- /wheels/*.whl && /opt/ecs-queue/bin/pip install --no-cache-dir "$1[$EXTRAS]"

ARG PYTHON_VERSION
FROM python:${PYTHON_VERSION}-slim
COPY --from=build /opt/ecs-queue /opt/ecs-queue
ENV PATH=/opt/ecs-queue/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ECS_QUEUE_CONFIG=/etc/ecs-queue/ecs_queue.cfg
RUN mkdir /etc/ecs-queue \
    && touch /etc/ecs-queue/ecs_queue.cfg \
    && useradd --uid 10001 --user-group --no-log-init --create-home worker
# As a number, so that Kubernetes' runAsNonRoot can check it.
USER 10001:10001
# Metrics and health are for this container only. Where Prometheus or a probe asks from outside: --metrics-host 0.0.0.0.
EXPOSE 9464
# Without a proxy: one that the environment names for AWS does not reach this container.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:9464/healthz', timeout=5)"]
# SIGTERM ends a worker within 10 s.
ENTRYPOINT ["ecs-queue"]
CMD ["worker", "--metrics-port", "9464", "--log-format", "json"]
