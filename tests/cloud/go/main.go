// Talks to the emulator as a program of Kubernetes' own would, with the AWS SDK for Go, and nothing but the environment to tell it where.
// It makes a group of two instances, finds them, and prints what it found.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	scaling "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// must ends the program at the first error: there is nothing to go on with.
func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	log.SetFlags(0)
	name := os.Args[1]
	ctx := context.Background()
	cfg := must(config.LoadDefaultConfig(ctx))

	identity := must(sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}))
	fmt.Println("account", *identity.Account)

	compute := ec2.NewFromConfig(cfg)
	vpc := must(compute.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("172.20.0.0/16")})).Vpc
	subnet := must(compute.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: vpc.VpcId, CidrBlock: aws.String("172.20.0.0/24")})).Subnet
	template := must(compute.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{
		LaunchTemplateName: &name,
		LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String("ami-12c6146b"), InstanceType: types.InstanceTypeT3Small},
	})).LaunchTemplate
	must(autoscaling.NewFromConfig(cfg).CreateAutoScalingGroup(ctx, &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: &name,
		MinSize:              aws.Int32(2),
		MaxSize:              aws.Int32(2),
		VPCZoneIdentifier:    subnet.SubnetId,
		LaunchTemplate:       &scaling.LaunchTemplateSpecification{LaunchTemplateId: template.LaunchTemplateId},
	}))
	instances := 0
	pages := ec2.NewDescribeInstancesPaginator(compute, &ec2.DescribeInstancesInput{
		Filters: []types.Filter{{Name: aws.String("vpc-id"), Values: []string{*vpc.VpcId}}},
	})
	for pages.HasMorePages() {
		for _, reservation := range must(pages.NextPage(ctx)).Reservations {
			instances += len(reservation.Instances)
		}
	}
	fmt.Println("instances", instances)

	bucket := s3.NewFromConfig(cfg)
	// S3 takes a bucket for another region than us-east-1 only if it is said.
	place := &s3types.CreateBucketConfiguration{LocationConstraint: s3types.BucketLocationConstraint(cfg.Region)}
	must(bucket.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name, CreateBucketConfiguration: place}))
	for range 2 {
		_, err := bucket.PutObject(ctx, &s3.PutObjectInput{Bucket: &name, Key: aws.String("lock"), Body: strings.NewReader("x"), IfNoneMatch: aws.String("*")})
		var failure smithy.APIError
		if errors.As(err, &failure) {
			fmt.Println("lock", failure.ErrorCode())
		} else {
			must(0, err)
			fmt.Println("lock taken")
		}
	}
}
