"""Where the emulator listens."""

import importlib

from localstack import config
from localstack.aws.serving.twisted import TLSMultiplexerFactory
from localstack.runtime import hooks
from localstack.runtime.server import twisted as server
from rolo.serving.twisted import TwistedGateway
from twisted.internet import endpoints, reactor, ssl


@hooks.on_runtime_create()
def listen_where_told():
    """LocalStack reads only the port of an IPv4 address in GATEWAY_LISTEN and listens on all of the machine's: on this one only."""
    server.TwistedRuntimeServer.register = register


@hooks.on_runtime_create()
def import_services():
    """moto's modules import one another in circles: imported by several first calls at once, they fail for good."""
    for module in ["autoscaling", "ec2", "elbv2", "iam", "s3", "ssm", "sts"]:
        importlib.import_module(f"moto.{module}.models")


def register(_self, gateway, listen: list[config.HostAndPort], ssl_creds=None):
    factory = TwistedGateway(gateway)
    if ssl_creds:
        certificate, key = ssl_creds
        context = ssl.DefaultOpenSSLContextFactory(key, certificate)
        context.getContext().use_certificate_chain_file(certificate)
        factory = TLSMultiplexerFactory(context, False, factory)
    for address in listen:
        kind = endpoints.TCP6ServerEndpoint if config.is_ipv6_address(address.host) else endpoints.TCP4ServerEndpoint
        kind(reactor, address.port, interface=address.host).listen(factory)
