package main

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

const (
	// trust is how long a listing is good for an instance that it has: what is asked of it hardly changes.
	trust = 5 * time.Second
	// gap is the least time between two listings, however many requests wait.
	gap = time.Second
	// patience is how long one listing may take, the SDK's own retries included.
	patience = 15 * time.Second
)

// instance is what EC2 says of one.
type instance struct {
	id    string
	state string
	zone  string
	tags  map[string]string
	// names are the DNS names that are its own, in small letters.
	names map[string]bool
	// addresses are those of all its interfaces, public ones included.
	addresses map[netip.Addr]bool
}

// cloud is the cluster's instances, as EC2 lists them: all in one call, since minions come in crowds.
type cloud struct {
	api     ec2.DescribeInstancesAPIClient
	cluster string
	now     func() time.Time

	mutex sync.Mutex
	asked time.Time
	known map[string]instance
	err   error
}

func newCloud(api ec2.DescribeInstancesAPIClient, cluster string) *cloud {
	return &cloud{api: api, cluster: cluster, now: time.Now}
}

// ownerTag is the tag that marks what belongs to the cluster for Kubernetes' cloud controller.
func (c *cloud) ownerTag() string {
	return "kubernetes.io/cluster/" + c.cluster
}

// find returns an instance of the cluster, nil if EC2 lists none of that id. With again set, what was found a moment ago did not do.
func (c *cloud) find(ctx context.Context, id string, again bool) (*instance, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	age := c.now().Sub(c.asked)
	_, there := c.known[id]
	if age >= trust || age >= gap && (again || !there) {
		c.list(ctx)
	}
	if c.err != nil {
		return nil, fmt.Errorf("EC2 could not be asked for the cluster's instances: %w", c.err)
	}
	found, there := c.known[id]
	if !there {
		return nil, nil
	}
	return &found, nil
}

// list asks EC2. The mutex is held.
func (c *cloud) list(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	known := map[string]instance{}
	filter := func(name string, values ...string) types.Filter { return types.Filter{Name: &name, Values: values} }
	most := int32(1000)
	pages := ec2.NewDescribeInstancesPaginator(c.api, &ec2.DescribeInstancesInput{
		Filters:    []types.Filter{filter("tag:"+c.ownerTag(), "owned"), filter("instance-state-name", "pending", "running")},
		MaxResults: &most,
	})
	c.err = nil
	for pages.HasMorePages() && c.err == nil {
		var page *ec2.DescribeInstancesOutput
		if page, c.err = pages.NextPage(ctx); c.err != nil {
			break
		}
		for _, reservation := range page.Reservations {
			for _, told := range reservation.Instances {
				one := read(told)
				known[one.id] = one
			}
		}
	}
	c.known, c.asked = known, c.now()
}

// health says what was wrong with the last listing.
func (c *cloud) health(*http.Request) error {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.err != nil {
		return fmt.Errorf("EC2 does not answer: %w", c.err)
	}
	return nil
}

// read takes from EC2's answer what decides.
func read(told types.Instance) instance {
	text := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	one := instance{id: text(told.InstanceId), tags: map[string]string{}, names: map[string]bool{}, addresses: map[netip.Addr]bool{}}
	if told.State != nil {
		one.state = string(told.State.Name)
	}
	if told.Placement != nil {
		one.zone = text(told.Placement.AvailabilityZone)
	}
	for _, tag := range told.Tags {
		one.tags[text(tag.Key)] = text(tag.Value)
	}
	name := func(s *string) {
		if text(s) != "" {
			one.names[strings.ToLower(*s)] = true
		}
	}
	address := func(s *string) {
		if parsed, err := netip.ParseAddr(text(s)); err == nil {
			one.addresses[parsed.Unmap()] = true
		}
	}
	// Its Node is called by the id.
	name(told.InstanceId)
	name(told.PrivateDnsName)
	name(told.PublicDnsName)
	address(told.PrivateIpAddress)
	address(told.PublicIpAddress)
	address(told.Ipv6Address)
	for _, device := range told.NetworkInterfaces {
		for _, private := range device.PrivateIpAddresses {
			address(private.PrivateIpAddress)
			if private.Association != nil {
				address(private.Association.PublicIp)
			}
		}
		for _, six := range device.Ipv6Addresses {
			address(six.Ipv6Address)
		}
	}
	return one
}
