"""Services that LocalStack doesn't have, but moto inside it does."""

from localstack.aws.spec import load_service
from localstack.services.moto import _proxy_moto
from localstack.services.plugins import Service, aws_provider


class Provider:
    """What LocalStack wants to know of a provider."""

    version = None

    def __init__(self, service: str):
        self.service = service


def through_moto(service: str) -> Service:
    """A service all of whose operations moto answers."""

    def handler(context, request=None, *_args, **_more):
        return _proxy_moto(context, request)

    def table(_provider):
        return {operation: handler for operation in load_service(service).operation_names}

    return Service.for_provider(Provider(service), dispatch_table_factory=table)


@aws_provider(api="autoscaling")
def autoscaling():
    return through_moto("autoscaling")


@aws_provider(api="elbv2")
def elbv2():
    return through_moto("elbv2")
