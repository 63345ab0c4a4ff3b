"""What OpenTelemetry calls the resource: which service exports."""

from __future__ import annotations

from opentelemetry.sdk.resources import Resource


def build_resource(service_name: str, instance: str) -> Resource:
    """Return the resource that the OTEL_ variables describe, with a name of the service if they give none.

    `instance` is the `service.instance.id`; "" for none.
    """
    resource = Resource.create({"service.instance.id": instance} if instance else {})
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # no variable names it
        resource = resource.merge(Resource({"service.name": service_name}))
    return resource
