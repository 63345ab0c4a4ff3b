# The image of the tasks: Airflow, what the DAGs import, and the DAGs. ecs-queue itself is not needed in it, nor are
# a database, a broker or any secret: each container gets its one task with a token of its own.
#
#   docker build -f airflow-task.Dockerfile -t ACCOUNT.dkr.ecr.REGION.amazonaws.com/airflow-task:1 .
#
# Airflow's version is the scheduler's.
ARG AIRFLOW_VERSION=3.3.2
FROM apache/airflow:${AIRFLOW_VERSION}

# Again for this part: an ARG above FROM does not reach it. Airflow itself must not be changed by what the DAGs need.
ARG AIRFLOW_VERSION
COPY requirements.txt /requirements.txt
RUN pip install --no-cache-dir "apache-airflow==${AIRFLOW_VERSION}" -r /requirements.txt

# Where the scheduler's DAG processor has them, too: a task names its file relative to this folder.
COPY dags/ /opt/airflow/dags/

# Not the image's own entrypoint: that waits for Airflow's database, which a task never sees. dumb-init hands on the
# SIGTERM of a stop, so that Airflow can say that the task was ended.
ENTRYPOINT ["/usr/bin/dumb-init", "--"]
