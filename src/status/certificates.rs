//! When certificates end.

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::error::{Context, Error, Result};

/// A certificate in a file of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The file.
    pub path: String,
    /// Whom it names.
    pub subject: String,
    /// From when it is valid, RFC 3339.
    pub not_before: String,
    /// Until when it is valid, RFC 3339.
    pub not_after: String,
    /// Whole days until then; negative once it is over.
    pub days_left: i64,
    /// Whether it is valid already.
    pub begun: bool,
}

impl Certificate {
    /// The day on which it ends.
    pub fn last_day(&self) -> &str {
        self.not_after.split('T').next().unwrap_or_default()
    }
}

/// All certificates of a PEM text.
pub(super) fn read(path: &str, pem: &str, now: OffsetDateTime) -> Result<Vec<Certificate>> {
    let what = || format!("{path} is not a readable certificate");
    x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes())
        .map(|block| {
            let block = block.with_context(what)?;
            let certificate = block.parse_x509().map_err(|e| Error::new(what()).why(e))?;
            let validity = certificate.validity();
            let (from, until) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
            Ok(Certificate {
                path: path.to_owned(),
                subject: certificate.subject().to_string(),
                not_before: from.format(&Rfc3339).with_context(what)?,
                not_after: until.format(&Rfc3339).with_context(what)?,
                days_left: (until - now).whole_seconds().div_euclid(24 * 60 * 60),
                begun: from <= now,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pki::authority::{Authority, Leaf};
    use time::Duration;

    #[test]
    fn days_are_counted_to_the_end_and_below_it() -> Result<()> {
        let authority = Authority::generate("ca")?;
        let pair = authority.issue(&Leaf::client("someone", Some("a group")), Duration::days(10))?;
        let now = OffsetDateTime::now_utc();
        let left = |after: Duration| read("x.crt", &pair.cert, now + after).map(|c| (c[0].days_left, c[0].begun));
        assert_eq!(left(Duration::minutes(5))?, (9, true));
        assert_eq!(left(Duration::days(9) + Duration::minutes(5))?, (0, true));
        assert_eq!(left(Duration::days(10) + Duration::minutes(5))?, (-1, true));
        assert_eq!(left(Duration::days(-1))?, (10, false));
        let both = read("x.crt", &format!("{}{}", pair.cert, authority.pair.cert), now)?;
        assert_eq!(both.iter().map(|c| c.subject.as_str()).collect::<Vec<_>>(), ["O=a group, CN=someone", "CN=ca"]);
        assert!(read("x.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", now).is_err());
        Ok(())
    }
}
