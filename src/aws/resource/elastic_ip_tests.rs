#![allow(clippy::unwrap_used)]

use aws_sdk_ec2::operation::allocate_address::AllocateAddressOutput;
use aws_sdk_ec2::operation::describe_addresses::DescribeAddressesOutput;
use aws_sdk_ec2::operation::release_address::ReleaseAddressError;
use aws_sdk_ec2::types::{Address, Tag};
use aws_smithy_mocks::mock;

use super::*;
use crate::aws::testing::{aws, coded, mocked};

fn wanted() -> ElasticIp {
    ElasticIp { name: "master-1".into(), interface: Ref::to("master-1"), gateway: None }
}

fn address() -> Address {
    let tag = Tag::builder().key(tags::NAME).value("master-1").build();
    Address::builder().allocation_id("eipalloc-1").public_ip("203.0.113.7").tags(tag).build()
}

fn http(status: u16) -> aws_smithy_runtime_api::http::Response<aws_smithy_types::body::SdkBody> {
    aws_smithy_runtime_api::http::Response::new(status.try_into().unwrap(), "<x/>".into())
}

#[tokio::test]
async fn an_address_whose_answer_was_lost_is_not_asked_for_again() {
    let lost = mock!(aws_sdk_ec2::Client::allocate_address).then_http_response(|| http(503));
    let there = mock!(aws_sdk_ec2::Client::describe_addresses)
        .then_output(|| DescribeAddressesOutput::builder().addresses(address()).build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&lost, &there]);
    let made = wanted().allocate(&aws).await.unwrap();
    assert_eq!((made.id(), made.address.as_str()), ("eipalloc-1", "203.0.113.7"));
    assert_eq!((lost.num_calls(), there.num_calls()), (1, 1));
}

#[tokio::test]
async fn an_address_that_was_not_made_is() {
    let lost = mock!(aws_sdk_ec2::Client::allocate_address).then_http_response(|| http(503));
    // Lists show what is new a moment later, so it is looked more than once.
    let none = || mock!(aws_sdk_ec2::Client::describe_addresses).then_output(|| DescribeAddressesOutput::builder().build());
    let looks = [none(), none(), none()];
    let made = mock!(aws_sdk_ec2::Client::allocate_address)
        .then_output(|| AllocateAddressOutput::builder().allocation_id("eipalloc-2").public_ip("203.0.113.8").build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&lost, &looks[0], &looks[1], &looks[2], &made]);
    assert_eq!(wanted().allocate(&aws).await.unwrap().id(), "eipalloc-2");
}

#[tokio::test]
async fn one_that_was_released_already_is_gone() {
    let refused =
        || ReleaseAddressError::generic(coded("AuthFailure", "You do not have permission to access the specified resource."));
    let refuse = mock!(aws_sdk_ec2::Client::release_address).then_error(refused);
    let none = mock!(aws_sdk_ec2::Client::describe_addresses).then_output(|| DescribeAddressesOutput::builder().build());
    let mut cloud = aws();
    cloud.ec2 = mocked!(aws_sdk_ec2, Sequential, [&refuse, &none]);
    ElasticIp::delete(&cloud, &found(address())).await.unwrap();

    let refuse = mock!(aws_sdk_ec2::Client::release_address).then_error(refused);
    let still = mock!(aws_sdk_ec2::Client::describe_addresses)
        .then_output(|| DescribeAddressesOutput::builder().addresses(address()).build());
    cloud.ec2 = mocked!(aws_sdk_ec2, Sequential, [&refuse, &still]);
    let error = ElasticIp::delete(&cloud, &found(address())).await.unwrap_err();
    assert!(error.what.contains("203.0.113.7 could not be released"), "{error}");
}
