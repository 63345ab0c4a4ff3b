# The image of Airflow's tasks: Airflow, the packages that the DAGs import, and the DAGs. It needs neither ecs-queue nor
# a database, a broker or a secret: each container receives one task with its own token.
#
#   docker build -f airflow-task.Dockerfile -t ACCOUNT.dkr.ecr.REGION.amazonaws.com/airflow-task:1 .
#
# Use the scheduler's version of Airflow.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}

# Declared again, because an ARG before FROM is not visible here. Pinning it keeps the DAGs' requirements from changing
# Airflow's version.
ARG AIRFLOW_VERSION
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" -r /requirements.txt

# The same folder as the scheduler's DAG processor: a task names its file relative to it.
COPY --chown=airflow:0 dags/ /opt/airflow/dags/

# A container that finds no compiled bytecode compiles Airflow at each start, and its disk is thrown away afterwards.
RUN python -m compileall -q -j 0 "$(python -c 'import os, airflow; print(os.path.dirname(airflow.__path__[0]))')" \
        /opt/airflow/dags

# Replaces the image's own entrypoint, which waits for Airflow's database; a task has no access to it. dumb-init forwards
# the SIGTERM of a stop to every process of the container, so that an operator's on_kill is called.
ENTRYPOINT ["/usr/bin/dumb-init", "--"]
