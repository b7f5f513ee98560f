//! Tests of the rules, and of what is done when AWS has some of them already, or no longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::authorize_security_group_ingress::{
    AuthorizeSecurityGroupIngressError, AuthorizeSecurityGroupIngressOutput,
};
use aws_sdk_ec2::operation::create_tags::CreateTagsOutput;
use aws_sdk_ec2::operation::describe_security_group_rules::DescribeSecurityGroupRulesOutput;
use aws_sdk_ec2::operation::revoke_security_group_ingress::{RevokeSecurityGroupIngressError, RevokeSecurityGroupIngressOutput};
use aws_sdk_ec2::types::ReferencedSecurityGroup;
use aws_smithy_mocks::mock;

use super::*;
use crate::aws::testing::{aws, coded, mocked};

fn access(balancer: bool) -> Access {
    // The host's part of a range is nothing to AWS, and makes no second rule.
    let ssh = ["198.51.100.7/32", "203.0.113.9/24", "203.0.113.0/24"].iter().map(|range| range.parse().unwrap()).collect();
    Access { ssh, api: vec!["198.51.100.7/32".parse().unwrap()], balancer }
}

fn table(access: &Access) -> String {
    let lines = |group: &SecurityGroupRules| {
        group.rules.iter().map(|rule| format!("{}: {rule} ({})\n", group.name, rule.purpose)).collect::<String>()
    };
    rules(access).iter().map(lines).collect()
}

#[test]
fn one_master() {
    insta::assert_snapshot!(table(&access(false)));
}

#[test]
fn several_masters() {
    insta::assert_snapshot!(table(&access(true)));
}

#[test]
fn nothing_is_open_to_the_world_unless_it_is_asked_for() {
    let none = Access { ssh: Vec::new(), api: Vec::new(), balancer: true };
    for group in rules(&none) {
        assert!(group.rules.iter().all(|rule| matches!(rule.source, Source::Group(_))), "{group:?}");
    }
}

fn tcp(port: i32, source: &str) -> Key {
    (Ports { protocol: "tcp".into(), from: port, to: port }, source.to_owned())
}

fn rule(id: &str, port: i32, source: &str) -> SecurityGroupRule {
    let rule = SecurityGroupRule::builder().security_group_rule_id(id).group_id("sg-1").is_egress(false);
    let rule = rule.ip_protocol("tcp").from_port(port).to_port(port);
    if source.contains('/') {
        rule.cidr_ipv4(source).build()
    } else {
        rule.referenced_group_info(ReferencedSecurityGroup::builder().group_id(source).build()).build()
    }
}

fn found(rules: &[(Key, &str)]) -> RulesFound {
    let rules = rules.iter().map(|(key, id)| (key.clone(), (*id).to_owned())).collect();
    RulesFound { name: "master".into(), group: "sg-1".into(), rules }
}

#[test]
fn rules_of_the_same_ports_are_one_permission() {
    let wanted = BTreeMap::from([(tcp(22, "198.51.100.7/32"), "SSH"), (tcp(22, "sg-2"), "SSH"), (tcp(6443, "sg-2"), "API")]);
    let permissions = permissions(&wanted);
    assert_eq!(permissions.len(), 2);
    assert_eq!(permissions[0].ip_ranges()[0].cidr_ip(), Some("198.51.100.7/32"));
    assert_eq!(permissions[0].user_id_group_pairs()[0].group_id(), Some("sg-2"));
    assert_eq!(permissions[0].ip_ranges()[0].description(), Some("SSH"));
}

#[test]
fn rules_for_what_goes_out_are_none_of_ours() {
    let mut one = rule("sgr-1", 22, "198.51.100.7/32");
    assert_eq!(key(&one), Some(tcp(22, "198.51.100.7/32")));
    one.is_egress = Some(true);
    assert_eq!(key(&one), None);
}

#[tokio::test]
async fn a_rule_that_is_there_already_becomes_ours_and_the_others_are_made() {
    let duplicate = || AuthorizeSecurityGroupIngressError::generic(coded("InvalidPermission.Duplicate", "already exists"));
    let first = mock!(Client::authorize_security_group_ingress)
        .match_requests(|call| call.ip_permissions().len() == 2)
        .then_error(duplicate);
    let here = mock!(Client::describe_security_group_rules).then_output(|| {
        let rules = [rule("sgr-1", 22, "198.51.100.7/32"), rule("sgr-2", 80, "0.0.0.0/0")];
        DescribeSecurityGroupRulesOutput::builder().set_security_group_rules(Some(rules.into())).build()
    });
    let tagged = mock!(Client::create_tags)
        .match_requests(|call| call.resources() == ["sgr-1"] && call.tags().iter().any(|tag| tag.key() == Some(tags::CLUSTER)))
        .then_output(|| CreateTagsOutput::builder().build());
    let second = mock!(Client::authorize_security_group_ingress)
        .match_requests(|call| call.ip_permissions().len() == 1 && call.ip_permissions()[0].from_port() == Some(6443))
        .then_output(|| AuthorizeSecurityGroupIngressOutput::builder().security_group_rules(rule("sgr-3", 6443, "sg-2")).build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&first, &here, &tagged, &second]);
    let wanted = BTreeMap::from([(tcp(22, "198.51.100.7/32"), "SSH"), (tcp(6443, "sg-2"), "API")]);
    let made = allow(&aws, &found(&[]), wanted).await.unwrap();
    assert_eq!(made, found(&[(tcp(22, "198.51.100.7/32"), "sgr-1"), (tcp(6443, "sg-2"), "sgr-3")]).rules);
    assert_eq!(second.num_calls(), 1);
}

#[tokio::test]
async fn a_rule_that_is_gone_does_not_keep_the_others() {
    let gone = || RevokeSecurityGroupIngressError::generic(coded("InvalidSecurityGroupRuleId.NotFound", "sgr-1 does not exist"));
    let first = mock!(Client::revoke_security_group_ingress)
        .match_requests(|call| call.security_group_rule_ids().len() == 2)
        .then_error(gone);
    let here = mock!(Client::describe_security_group_rules)
        .then_output(|| DescribeSecurityGroupRulesOutput::builder().security_group_rules(rule("sgr-2", 6443, "sg-2")).build());
    let second = mock!(Client::revoke_security_group_ingress)
        .match_requests(|call| call.security_group_rule_ids() == ["sgr-2"])
        .then_output(|| RevokeSecurityGroupIngressOutput::builder().build());
    let mut aws = aws();
    aws.ec2 = mocked!(aws_sdk_ec2, Sequential, [&first, &here, &second]);
    let rules = found(&[(tcp(22, "198.51.100.7/32"), "sgr-1"), (tcp(6443, "sg-2"), "sgr-2")]).rules;
    revoke(&aws, "sg-1", rules).await.unwrap();
    assert_eq!(second.num_calls(), 1);
}
