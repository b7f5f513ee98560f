"""IAM: LocalStack's own provider, with a SimulatePrincipalPolicy that reads policies as AWS does.

LocalStack's knows no wildcard, needs a resource, calls everything that is not allowed an explicit denial, and counts who may assume a
role as what the role may do.
"""

import fnmatch
import json
import re

from localstack.aws.api import CommonServiceException, RequestContext, handler
from localstack.services.iam.provider import IamProvider, get_iam_backend
from moto.iam.exceptions import NotFoundException


class Provider(IamProvider):
    service = "iam"

    @handler("SimulatePrincipalPolicy", expand=False)
    def simulate_principal_policy(self, context: RequestContext, request, **_):
        documents = policies_of(get_iam_backend(context), request["PolicySourceArn"])
        documents += [("inline", document) for document in request.get("PolicyInputList") or []]
        statements = [(name, s) for name, document in documents for s in listed(as_json(document)["Statement"])]
        values = {e["ContextKeyName"].lower(): e["ContextKeyValues"] for e in request.get("ContextEntries") or []}
        results = [
            evaluate(statements, action, resource, values)
            for action in request["ActionNames"]
            for resource in request.get("ResourceArns") or ["*"]
        ]
        start, size = int(request.get("Marker") or 0), int(request.get("MaxItems") or 100)
        more = start + size < len(results)
        return {"EvaluationResults": results[start : start + size], "IsTruncated": more} | ({"Marker": str(start + size)} if more else {})


def listed(value) -> list:
    return value if isinstance(value, list) else [value]


def as_json(document) -> dict:
    return json.loads(document) if isinstance(document, str) else document


def policies_of(iam, arn: str) -> list[tuple[str, str]]:
    """Name and document of every policy that bears on a user or role."""
    entity = re.fullmatch(r"arn:[^:]+:iam::\d*:(user|role|group)/(?:.*/)?([^/]+)", arn)
    if not entity:
        # So for the account's root, and for the session of an assumed role.
        raise CommonServiceException("InvalidInput", f"Invalid Entity Arn: {arn} does not clearly define entity type and name.", sender_fault=True)
    kind, name = entity.groups()
    holders = []
    try:
        if kind == "role":
            holders = [iam.get_role(name)]
        elif kind == "group":
            holders = [iam.get_group(name)]
        else:
            holders = [iam.get_user(name), *(group for group in iam.groups.values() if name in [user.name for user in group.users])]
    except NotFoundException:
        pass
    if not holders or holders[0].arn != arn:
        raise CommonServiceException("NoSuchEntity", f"The {kind} with name {name} cannot be found.", status_code=404, sender_fault=True)
    found = []
    for holder in holders:
        inline = holder.policies.items() if isinstance(holder.policies, dict) else [(p["policy_name"], p["policy_document"]) for p in holder.policies]
        found += inline
        found += [(policy.name, v.document) for policy in holder.managed_policies.values() for v in policy.versions if v.is_default]
    return found


def evaluate(statements, action, resource, values) -> dict:
    decision, matched = "implicitDeny", []
    for name, statement in statements:
        if not (applies(statement, "Action", action.lower()) and applies(statement, "Resource", resource) and holds(statement.get("Condition", {}), values)):
            continue
        matched.append({"SourcePolicyId": name, "SourcePolicyType": "IAM Policy"})
        if statement["Effect"] == "Deny":
            decision = "explicitDeny"
        elif decision != "explicitDeny":
            decision = "allowed"
    return {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision, "MatchedStatements": matched, "MissingContextValues": []}


def like(pattern: str, value: str) -> bool:
    # Brackets mean nothing in a policy.
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def applies(statement, key, value) -> bool:
    """Whether an action or a resource is one that the statement names, or, with Not, one that it doesn't."""
    lower = str.lower if key == "Action" else str
    if key in statement:
        return any(like(lower(p), value) for p in listed(statement[key]))
    return not any(like(lower(p), value) for p in listed(statement.get("Not" + key, [])))


def holds(conditions, values) -> bool:
    return all(condition(operator, values.get(key.lower()), listed(wanted)) for operator, keys in conditions.items() for key, wanted in keys.items())


TESTS = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": like,
    "ArnEquals": like,
    "ArnLike": like,
    "Bool": lambda wanted, value: wanted.lower() == value.lower(),
    "NumericEquals": lambda wanted, value: float(wanted) == float(value),
    "NumericLessThanEquals": lambda wanted, value: float(value) <= float(wanted),
}


def condition(operator: str, given: list | None, wanted: list) -> bool:
    """One condition. A key that the request doesn't have fails it, or passes with IfExists and with operators that negate."""
    wanted = [str(w).lower() if isinstance(w, bool) else str(w) for w in wanted]
    every, _, operator = operator.rpartition(":")
    optional = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    if operator == "Null":
        return (given is None) == (wanted[0] == "true")
    negated = "Not" in operator
    test = TESTS.get(operator.replace("Not", ""))
    if test is None:
        raise CommonServiceException("InvalidInput", f"this emulator does not know the condition {operator}", sender_fault=True)
    if given is None:
        return optional or negated or every == "ForAllValues"
    met = [any(test(w, value) for w in wanted) != negated for value in given]
    return all(met) if every == "ForAllValues" or negated else any(met)
