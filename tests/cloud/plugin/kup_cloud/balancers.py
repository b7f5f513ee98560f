"""Network load balancers with names of their own kind: moto gives every balancer those of an application load balancer."""

import functools

from localstack.utils.patch import patch
from moto.elbv2.models import ELBv2Backend


@functools.cache
def mend():
    @patch(ELBv2Backend.create_load_balancer)
    def create(original, self, **given):
        # Where nothing is said, which moto keeps as nothing.
        balancer = original(self, **given | {"scheme": given.get("scheme") or "internet-facing"})
        if given.get("loadbalancer_type") == "network":
            tags = {tag["Key"]: tag["Value"] for tag in given.get("tags") or []}
            self.tagging_service.delete_all_tags_for_resource(balancer.arn)
            del self.load_balancers[balancer.arn]
            balancer.arn = balancer.arn.replace(":loadbalancer/app/", ":loadbalancer/net/")
            id = balancer.arn.rsplit("/", 1)[1]
            balancer.dns_name = f"{balancer.name}-{id}.elb.{self.region_name}.amazonaws.com"
            self.load_balancers[balancer.arn] = balancer
            self.tagging_service.tag_resource(balancer.arn, [{"Key": k, "Value": v} for k, v in tags.items()])
        return balancer
