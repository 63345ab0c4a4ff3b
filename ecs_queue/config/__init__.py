"""The configuration: one loader, typed and checked values, one error that names every problem and its origin."""

from ecs_queue.config.loader import load_config
from ecs_queue.config.model import Config, EffectiveValue
from ecs_queue.config.profile import Profile
from ecs_queue.config.redact import redact_run_task_kwargs, redact_url

__all__ = ["Config", "EffectiveValue", "Profile", "load_config", "redact_run_task_kwargs", "redact_url"]
