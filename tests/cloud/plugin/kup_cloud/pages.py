"""Small pages, and what follows them as it was when the first was asked for.

No list of AWS promises more than that there is a token while there is more: "IAM might return fewer than the MaxItems number of
results, even when there are more results available" (API_ListRoles, and the like for EC2's and S3's).
"""

import copy
import functools
import itertools

from kup_cloud import settings

# As many are on a page at most.
SIZE = 5
# S3 makes its pages itself, by what is asked for.
S3_LIMITS = {"ListObjects": "MaxKeys", "ListObjectsV2": "MaxKeys", "ListObjectVersions": "MaxKeys", "ListMultipartUploads": "MaxUploads"}

_numbers = itertools.count(1)
# Token -> action, what remains, the token of LocalStack's own next page.
_rest: dict[str, tuple] = {}


@functools.cache
def form_of(service: str, action: str) -> dict | None:
    """How a list is cut into pages, as botocore knows it: by one token, and a single list."""
    import botocore.session

    try:
        form = botocore.session.get_session().get_paginator_model(service).get_paginator(action)
    except Exception:
        return None
    plain = [form.get(name) for name in ("input_token", "output_token")]
    key = form.get("result_key")
    key = key[0] if isinstance(key, list) and len(key) == 1 else key
    if not isinstance(key, str) or not all(isinstance(name, str) and name.isidentifier() for name in [*plain, key]):
        return None
    return form | {"result_key": key}


def size_of(call, form) -> int:
    asked = call.request.get(form.get("limit_key") or "") or SIZE
    return min(int(asked), SIZE)


def paged(call) -> dict | None:
    if not call.action.startswith(settings.READS):
        return None
    # Whoever names what he wants gets it in one answer: EC2 takes no page size there.
    if any(isinstance(value, list) and value for name, value in call.request.items() if name != "Filters"):
        return None
    return form_of(call.service, call.action)


def following(call):
    """Answers with the page that a token of ours stands for."""
    if call.service == "s3":
        limit = S3_LIMITS.get(call.action)
        if limit:
            call.asked = call.request.get(limit)
            call.request[limit] = min(int(call.asked or SIZE), SIZE)
        return
    form = paged(call)
    token = form and call.request.get(form["input_token"])
    if token in _rest:
        answer, remaining, own = _rest[token]
        call.answer = copy.copy(answer)
        page(call, form, remaining, own)
        call.paged = True


def cut(call):
    if call.service == "s3":
        limit = S3_LIMITS.get(call.action)
        if limit and limit in call.answer:
            call.answer[limit] = int(call.asked or 1000)
        return
    form = paged(call)
    if form and not getattr(call, "paged", False):
        page(call, form, call.answer.get(form["result_key"]) or [], call.answer.get(form["output_token"]))


def page(call, form, all_, own):
    """Puts the first of these into the answer, and keeps the others."""
    size, more = size_of(call, form), form.get("more_results")
    if len(all_) <= size:
        if all_ or form["result_key"] in call.answer:
            call.answer[form["result_key"]] = all_
        token = own
    else:
        call.answer[form["result_key"]] = all_[:size]
        token = f"kup-page-{next(_numbers)}"
        _rest[token] = (copy.copy(call.answer), all_[size:], own)
    call.answer.pop(form["output_token"], None)
    if token:
        call.answer[form["output_token"]] = token
    if more:
        call.answer[more] = bool(token)
