"""Network load balancers as the runner is to make them, and what it says of their targets' health."""

# (target group's ARN, target, port) as one word each -> what DescribeTargetHealth is to say.
HEALTH: dict[str, dict] = {}


def add(seen, ec2, elb):
    pass
