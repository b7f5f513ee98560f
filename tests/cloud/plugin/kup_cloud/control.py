"""Faults that a test orders for one exact call, over HTTP, in every profile.

    POST   /_kup/faults              {"service": "ec2", "action": "RunInstances", "nth": 1, "when": "after", "what": "reset"}  ->  {"id": 1, ...}
    GET    /_kup/faults              all of them, with what became of them
    GET    /_kup/faults/ID           one; with ?until=held&seconds=10 once that is its state, or the time is over
    POST   /_kup/faults/ID/release   lets a held call go on
    DELETE /_kup/faults              forgets all; held calls go on

service, action   which calls: `*` is any
mutates           true: only calls that change something; false: only others; left out: both
nth               the how-manieth of these calls from now on: 1 is the next
times             how many calls from that on: 1
when              `before` it takes effect, or `after`
what              reset      the connection is reset, and no reply is sent
                  500        an internal error of the service
                  throttle   the service's own error for too many calls
                  hold       the call is held until it is released, or its client is gone. One that is held before it takes effect has none
                             if its client is gone by then
                  error      the error of `code` and `message`, with `status` (400)

States: `waiting`, `held`, `done`; of a held call, `end` says whether it was `released` or `abandoned`.
"""

import itertools
import threading
import time

from localstack.aws.api import CommonServiceException
from localstack.http import Request, Response
from werkzeug.exceptions import BadRequest

from kup_cloud import calls

WHENS = ("before", "after")
WHATS = ("reset", "500", "throttle", "hold", "error")
# How often it is looked whether a held call's client is there.
LOOK = 0.01

_orders: list["Order"] = []
_ids = itertools.count(1)
_changed = threading.Condition(calls.STATE)


class Order:
    def __init__(self, said: dict):
        self.id = next(_ids)
        self.service, self.action = said.get("service", "*"), said.get("action", "*")
        self.mutates = said.get("mutates")
        self.nth, self.times = int(said.get("nth", 1)), int(said.get("times", 1))
        self.when, self.what = said.get("when", "before"), str(said.get("what"))
        self.code, self.message = said.get("code"), said.get("message", "ordered by a test")
        self.status = int(said.get("status", 400))
        unknown = set(said) - {"service", "action", "mutates", "nth", "times", "when", "what", "code", "message", "status"}
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        if self.when not in WHENS or self.what not in WHATS:
            raise ValueError(f"when is one of {', '.join(WHENS)}, what one of {', '.join(WHATS)}")
        if (self.what == "error") != bool(self.code):
            raise ValueError("a code belongs to an error, and an error needs one")
        if self.nth < 1 or self.times < 1:
            raise ValueError("nth and times are 1 or more")
        self.seen = 0
        self.state, self.end, self.call = "waiting", None, None
        self.released = False

    def shown(self) -> dict:
        said = {"id": self.id, "service": self.service, "action": self.action, "when": self.when, "what": self.what, "nth": self.nth}
        return said | {"state": self.state, "end": self.end, "call": self.call}

    def takes(self, call) -> bool:
        """Whether this call is meant. Counts it, if it is of the right kind."""
        if self.state == "done" or self.service not in ("*", call.service) or self.action not in ("*", call.action):
            return False
        if self.mutates not in (None, call.mutates):
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


def before(call):
    call.orders = [order for order in _orders if order.takes(call)]
    for order in call.orders:
        if order.when == "before":
            apply(order, call)


def after(call):
    for order in call.orders:
        if order.when == "after":
            try:
                apply(order, call)
            except CommonServiceException as error:
                call.error = error


def apply(order, call):
    call.fault = f"{order.what} {order.when}"
    order.call = {"service": call.service, "action": call.action, "n": call.number, "nth": call.nth}
    if order.what == "hold":
        hold(order, call)
    done(order)
    if order.what == "reset" or order.end == "abandoned":
        call.drop()
    if order.what == "500":
        raise calls.broken(call)
    if order.what == "throttle":
        raise calls.throttled(call)
    if order.what == "error":
        raise CommonServiceException(order.code, order.message, status_code=order.status, sender_fault=order.status < 500)
    if call.lost and order.when == "before":
        # It must not take effect; what the reply would be is never seen.
        raise calls.broken(call)


def hold(order, call):
    order.state = "held"
    _changed.notify_all()
    while not order.released:
        if call.abandoned():
            order.end = "abandoned"
            return
        # The others go on meanwhile: this sets the lock free.
        _changed.wait(LOOK)
    order.end = "released"


def done(order):
    if order.seen >= order.nth + order.times - 1:
        order.state = "done"
        _changed.notify_all()


# --- over HTTP ------------------------------------------------------------------------------------------------------------------


def serve():
    from localstack.services.edge import ROUTER

    ROUTER.add("/_kup/faults", faults, methods=["GET", "POST", "DELETE"])
    ROUTER.add("/_kup/faults/<int:id>", one, methods=["GET"])
    ROUTER.add("/_kup/faults/<int:id>/release", release, methods=["POST"])


def answer(said, status=200) -> Response:
    response = Response(status=status)
    response.set_json(said)
    return response


def faults(request: Request) -> Response:
    if request.method == "POST":
        try:
            order = Order(request.get_json(force=True))
        except (ValueError, TypeError, AttributeError, BadRequest) as error:
            return answer({"error": str(error)}, 400)
        _orders.append(order)
        return answer(order.shown(), 201)
    if request.method == "DELETE":
        for order in _orders:
            order.released = True
            order.state = "done" if order.state == "waiting" else order.state
        _orders.clear()
        _changed.notify_all()
        return answer([])
    return answer([order.shown() for order in _orders])


def find(id: int):
    return next((order for order in _orders if order.id == id), None)


def one(request: Request, id: int) -> Response:
    order = find(id)
    if order is None:
        return answer({"error": f"no fault {id} was ordered"}, 404)
    until, deadline = request.args.get("until"), time.monotonic() + float(request.args.get("seconds", 10))
    while until and order.state != until and time.monotonic() < deadline:
        _changed.wait(max(0, deadline - time.monotonic()))
    return answer(order.shown())


def release(_request: Request, id: int) -> Response:
    order = find(id)
    if order is None:
        return answer({"error": f"no fault {id} was ordered"}, 404)
    order.released = True
    _changed.notify_all()
    return answer(order.shown())
