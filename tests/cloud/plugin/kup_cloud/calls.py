"""The one place where calls are watched, refused, delayed and spoilt, whoever makes them.

A call passes these steps, each of which may end it with an error:

    faults ordered for it (before) -> hostile's faults (before) -> token buckets -> replay of a client token -> rules -> LocalStack
    -> what the rules note -> what hostile hides -> pages -> faults (after it took effect)

All of it is done for one call at a time: moto's state is not made for several. A call that is held lets the others pass.
"""

import functools
import itertools
import logging
import os
import threading
import time

from localstack.aws import handlers
from localstack.aws.api import CommonServiceException, ServiceException
from localstack.http import Response
from localstack.runtime import hooks
from localstack.utils.patch import patch

from kup_cloud import settings

LOG = logging.getLogger(__name__)

# Held while a call is worked on, and by whoever else changes the services' state.
STATE = threading.RLock()

_numbers = itertools.count(1)
_counts: dict[tuple[str, str], int] = {}


class Call:
    """One call of a service's operation."""

    def __init__(self, context, request):
        self.context, self.request = context, request
        self.service, self.action = context.service.service_name, context.operation.name
        self.region, self.account = context.region, context.account_id
        self.number = next(_numbers)
        key = self.service, self.action
        # It is which of its action: what hostile's decisions depend on.
        self.nth = _counts[key] = _counts.get(key, 0) + 1
        self.answer: dict | None = None
        self.error: ServiceException | None = None
        # What was done to it.
        self.fault: str | None = None
        self.lost = False

    @property
    def mutates(self) -> bool:
        return not self.action.startswith(settings.READS)

    @property
    def ec2(self):
        from moto.ec2.models import ec2_backends

        return ec2_backends[self.account][self.region]

    @property
    def iam(self):
        from moto.iam.models import iam_backends

        return iam_backends[self.account]["aws"]

    @property
    def groups(self):
        from moto.autoscaling.models import autoscaling_backends

        return autoscaling_backends[self.account][self.region]

    @property
    def balancers(self):
        from moto.elbv2.models import elbv2_backends

        return elbv2_backends[self.account][self.region]

    def connection(self):
        """The client's connection, as twisted has it."""
        return self.context.request.environ["kup.request"].transport

    def drop(self):
        """Resets the connection: the client gets no reply."""
        from twisted.internet import reactor

        self.lost = True
        reactor.callFromThread(self.connection().abortConnection)

    def abandoned(self) -> bool:
        """Whether the client is gone. twisted doesn't read while a request is worked on, so the socket is asked."""
        import socket

        try:
            return self.connection().getHandle().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except (OSError, AttributeError):
            return True


def refuse(code: str, message: str, status: int = 400):
    """Ends a call with an error of the caller's, as AWS words it."""
    raise CommonServiceException(code, message, status_code=status, sender_fault=status < 500)


# LocalStack knows hooks by the names of their functions: no two may have the same.
@hooks.on_runtime_create()
def watch_calls():
    """Puts all of this into LocalStack's way of a call."""
    try:
        put_in_place()
    except BaseException:
        # LocalStack would go on without it, and be another AWS than was asked for.
        LOG.exception("the calls can't be watched")
        os._exit(1)


def put_in_place():
    from localstack.aws.skeleton import Skeleton
    from rolo.gateway import Gateway
    from rolo.serving import twisted

    from kup_cloud import control, journal

    @patch(Gateway.process)
    def one_at_a_time(original, self, request, response):
        with STATE:
            original(self, request, response)

    @patch(twisted.HeaderPreservingWSGIResponse.__init__)
    def remember_connection(original, self, reactor, threadpool, application, request):
        original(self, reactor, threadpool, application, request)
        self.environ["kup.request"] = request

    before, after, at_last = steps()

    @patch(Skeleton.dispatch_request)
    def dispatch(_original, self, serializer, context, request):
        call = context.kup_call = Call(context, request)
        call.begun = time.time()
        try:
            for step in before:
                step(call)
            if call.answer is None:
                call.answer = self.dispatch_table[call.action](context, request) or {}
            if not isinstance(call.answer, Response):
                for step in after:
                    step(call)
        except ServiceException as error:
            call.error = error
        for step in at_last:
            step(call)
        if call.error:
            raise call.error
        if isinstance(call.answer, Response):
            return call.answer
        context.service_response = call.answer
        return serializer.serialize_to_response(call.answer, context.operation, context.request.headers, context.request_id)

    control.serve()
    handlers.run_custom_finalizers.append(journal.record)


def steps():
    """What is done with each call: before LocalStack has it, with its answer, and at the very end whatever came of it."""
    from kup_cloud import control

    before, after, at_last = [control.before], [], [control.after]
    if settings.STRICT:
        from kup_cloud import buckets, dwell, pages, strict, tokens

        before += [dwell.settle, buckets.check, pages.following, tokens.replay, strict.check]
        after += [strict.note_answer, tokens.keep, pages.cut]
        strict.mend()
    if settings.HOSTILE:
        from kup_cloud import hostile, stale

        before[1:1] = [hostile.before]
        before.append(stale.check)
        after.insert(2, stale.hide)
        at_last[:0] = [hostile.after]
    return before, after, at_last


@functools.cache
def words_of(service: str) -> dict[str, str]:
    """A service's own words for what all of them say."""
    return {
        "throttled": {"ec2": "RequestLimitExceeded", "s3": "SlowDown"}.get(service, "Throttling"),
        "broken": {"ec2": "InternalError", "s3": "InternalError", "iam": "ServiceFailure"}.get(service, "InternalFailure"),
    }


def throttled(call: Call) -> CommonServiceException:
    message = {"ec2": "Request limit exceeded.", "s3": "Please reduce your request rate."}.get(call.service, "Rate exceeded")
    return CommonServiceException(
        words_of(call.service)["throttled"], message, status_code=503 if call.service in ("ec2", "s3") else 400, sender_fault=call.service != "s3"
    )


def broken(call: Call) -> CommonServiceException:
    return CommonServiceException(words_of(call.service)["broken"], "An internal error has occurred", status_code=500)
