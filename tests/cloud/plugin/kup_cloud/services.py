"""The services as LocalStack is to load them: those that it lacks, and those that we mend.

Whatever is mended stands in a module of its own, each with a `mend()` that may be called by several services: moto's services use one
another's state, so an Auto Scaling group must find EC2 mended even if nobody has called EC2 before.
"""

from localstack.aws.spec import load_service
from localstack.services.moto import MotoFallbackDispatcher, _proxy_moto
from localstack.services.plugins import Service, aws_provider


class Provider:
    """What LocalStack wants to know of a provider."""

    version = None

    def __init__(self, service: str):
        self.service = service


def through(service: str, handlers: dict | None = None) -> Service:
    """A service whose operations these handlers answer, and moto all others."""

    def moto(context, request=None, *_args, **_more):
        return _proxy_moto(context, request)

    def table(_provider):
        return {operation: moto for operation in load_service(service).operation_names} | (handlers or {})

    return Service.for_provider(Provider(service), dispatch_table_factory=table)


@aws_provider(api="autoscaling")
def autoscaling():
    from kup_cloud import groups, instances

    instances.mend()
    groups.mend()
    return through("autoscaling")


@aws_provider(api="elbv2")
def elbv2():
    from kup_cloud import balancers

    balancers.mend()
    return through("elbv2")


@aws_provider(api="service-quotas")
def service_quotas():
    from kup_cloud import quotas

    return through("service-quotas", quotas.HANDLERS)


# The name "kup" is chosen by PROVIDER_OVERRIDE_... in the environment; "default" is LocalStack's own.


@aws_provider(api="ec2", name="kup")
def ec2():
    from kup_cloud.ec2 import Provider

    return Service.for_provider(Provider(), dispatch_table_factory=MotoFallbackDispatcher)


@aws_provider(api="ssm", name="kup")
def ssm():
    from localstack.services.ssm.provider import SsmProvider

    from kup_cloud import images

    images.mend()
    # It tells an event bus of every change, which needs packages that nothing else does; nobody listens.
    SsmProvider._notify_event_subscribers = staticmethod(lambda *_: None)
    return Service.for_provider(SsmProvider(), dispatch_table_factory=MotoFallbackDispatcher)


@aws_provider(api="iam", name="kup")
def iam():
    from kup_cloud.iam import Provider

    return Service.for_provider(Provider(), dispatch_table_factory=MotoFallbackDispatcher)


@aws_provider(api="s3", name="kup")
def s3():
    from kup_cloud.s3 import Provider, table

    return Service.for_provider(Provider(), dispatch_table_factory=table)
