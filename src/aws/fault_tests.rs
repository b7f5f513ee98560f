#![allow(clippy::unwrap_used)]

use super::*;

fn told(fault: Fault, code: &str, message: &str) -> String {
    Failure { fault, code: code.into(), message: message.into(), request: None, call: None }.error("no VPC").to_string()
}

#[test]
fn a_denial_names_the_line_to_add() {
    let message = "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/me is not authorized to perform: \
                   ec2:CreateVpc on resource: arn:aws:ec2:us-west-2:123456789012:vpc/* because no identity-based policy allows it.";
    let text = told(Fault::Denied, "UnauthorizedOperation", message);
    let line = r#"{"Effect": "Allow", "Action": "ec2:CreateVpc", "Resource": "arn:aws:ec2:us-west-2:123456789012:vpc/*"}"#;
    assert!(text.contains(line), "{text}");
    assert_eq!(denied("User: x is not authorized to perform: iam:ListRoles"), Some(("iam:ListRoles", "*")));
    assert_eq!(denied("Access Denied"), None);
}

/// The SDK's errors are named by their calls, and some calls need an action of another name.
#[test]
fn a_denial_that_names_nothing_is_named_by_its_call() {
    use aws_sdk_ec2::operation::create_vpc::CreateVpcError;
    assert_eq!(call_of(std::any::type_name::<CreateVpcError>()).as_deref(), Some("ec2:CreateVpc"));
    let call = call_of(std::any::type_name::<aws_sdk_s3::operation::delete_objects::DeleteObjectsError>());
    let denial = Failure { fault: Fault::Denied, code: "403".into(), message: "Forbidden".into(), request: None, call };
    let text = denial.error("no bucket").to_string();
    assert!(text.contains(r#""Action": "s3:DeleteObject""#), "{text}");
    assert_eq!(call_of("std::io::Error"), None);
}

#[test]
fn what_to_type_names_the_profile_that_was_asked_for() {
    let failure =
        || Failure { fault: Fault::Login, code: "ExpiredToken".into(), message: "expired".into(), request: None, call: None };
    let named = failure().error_as("no login", Some("work")).to_string();
    for command in ["sts get-caller-identity", "sso login", "configure"] {
        assert!(named.contains(&format!("`aws {command} --profile work`")), "{command}: {named}");
    }
    assert!(!named.contains("likewise") && !named.contains("if you use one"), "{named}");
    let any = failure().error("no login").to_string();
    assert!(any.contains("`aws sso login` (with --profile likewise)") && !any.contains("work"), "{any}");
}

/// Too many calls by others say nothing about whether one may log in.
#[test]
fn a_first_call_that_aws_had_no_time_for_is_no_wrong_login() {
    use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError;
    let first = |code: &str| {
        let refused = GetCallerIdentityError::generic(ErrorMetadata::builder().code(code).message("no").build());
        login("no identity", First::default(), SdkError::service_error(refused, ()))
    };
    for code in ["Throttling", "RequestLimitExceeded", "ServiceUnavailable", "InternalFailure"] {
        let error = first(code);
        assert_eq!(error.kind, Kind::Failed, "{code}: {error}");
        assert!(error.to_string().contains("try again") && !error.to_string().contains("sso"), "{code}: {error}");
    }
    let error = first("SomethingElse");
    assert!(error.kind == Kind::Credentials && error.to_string().contains("aws sso login"), "{error}");
}

#[test]
fn a_wrong_clock_is_not_taken_for_a_wrong_login() {
    let text = told(Fault::Login, "SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than …");
    assert!(text.contains("clock") && !text.contains("sso"), "{text}");
}

/// A proxy's page, or a program that is not AWS, says nothing about whether one may log in.
#[test]
fn what_is_not_aws_is_no_wrong_login() {
    use aws_sdk_sts::operation::get_caller_identity::GetCallerIdentityError;
    let first = |endpoint, status| {
        let page = GetCallerIdentityError::generic(ErrorMetadata::builder().build());
        login("no identity", First { endpoint, status, profile: None }, SdkError::service_error(page, ()))
    };
    let error = first(Some("http://127.0.0.1:9"), Some(502));
    assert_eq!(error.kind, Kind::Failed);
    insta::assert_snapshot!(error, @r"
    http://127.0.0.1:9, which is to be called in place of AWS, is not AWS
      because: the answer, HTTP 502, is none of AWS's
      next: start what is to answer there; or `unset AWS_ENDPOINT_URL` (or endpoint_url of the profile), to call AWS itself
    ");
    let error = first(None, Some(407));
    assert!(
        error.kind == Kind::Failed && error.to_string().contains("HTTP 407") && !error.to_string().contains("sso"),
        "{error}"
    );
}
