//! One DNS question over TCP, asked on a machine with nothing but bash: a stock image has no resolver that takes a server.

use std::net::Ipv4Addr;

/// A question for the IPv4 address of a name.
pub struct Query {
    message: Vec<u8>,
}

/// Identifies our question in the reply; one question a connection, so it need not be random.
const ID: [u8; 2] = [0x6b, 0x75];

impl Query {
    /// A question of type A, class IN (RFC 1035, 4.1).
    pub fn new(name: &str) -> Query {
        let mut message = ID.to_vec();
        // Recursion desired, one question, nothing else.
        message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.trim_end_matches('.').split('.') {
            // The name comes from a validated config: no label is longer than 63 bytes.
            message.push(u8::try_from(label.len().min(63)).unwrap_or(63));
            message.extend(label.bytes().take(63));
        }
        message.extend([0, 0, 1, 0, 1]);
        Query { message }
    }

    /// A command that asks `server`, in the network of a pod if the machine has one, and prints `pod` or `node` and the reply in
    /// hexadecimal.
    pub fn shell_command(&self, server: Ipv4Addr) -> String {
        let length = u16::try_from(self.message.len()).unwrap_or(u16::MAX).to_be_bytes();
        let bytes: String = length.iter().chain(&self.message).map(|b| format!("\\x{b:02x}")).collect();
        format!(
            "for n in /run/netns/cni-*; do break; done; if [ -e \"$n\" ]; then echo pod; in=\"nsenter --net=$n\"; else echo node; in=; fi; \
             timeout 3 $in bash -c 'exec 3<>/dev/tcp/{server}/53 && printf \"{bytes}\" >&3 && n=$(head -c 2 <&3 | od -An -tu1) && set -- $n && \
             head -c $(($1 * 256 + $2)) <&3 | od -An -v -tx1' 2>&1"
        )
    }

    /// The address in a reply printed by that command; else why there is none.
    pub fn answer(&self, printed: &str) -> Result<Ipv4Addr, String> {
        let bytes: Option<Vec<u8>> = printed.split_whitespace().map(|b| u8::from_str_radix(b, 16).ok()).collect();
        let reply = match bytes {
            Some(bytes) if bytes.len() >= 12 => bytes,
            _ if printed.trim().is_empty() => return Err("no answer within 3 s".into()),
            _ => return Err(printed.trim().to_owned()),
        };
        if !reply.starts_with(&ID) {
            return Err("the reply is to another question".into());
        }
        match reply.get(3).map(|flags| flags & 0x0f) {
            Some(0) => {}
            Some(3) => return Err("there is no such name".into()),
            code => return Err(format!("the server answered with code {}", code.unwrap_or_default())),
        }
        // One record of type A ends with its length (4) and the address; without a record the question's class ends it.
        match reply.get(6..8) {
            Some([0, 0]) | None => Err("the reply has no record".into()),
            Some(_) => match reply.get(reply.len().saturating_sub(6)..) {
                Some(&[0, 4, a, b, c, d]) => Ok(Ipv4Addr::new(a, b, c, d)),
                _ => Err("the reply does not end with an address".into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(query: &Query, flags: [u8; 2], records: &[u8]) -> String {
        let mut reply = query.message.clone();
        reply[2..4].copy_from_slice(&flags);
        reply[7] = u8::from(!records.is_empty());
        reply.extend(records);
        reply.iter().map(|b| format!(" {b:02x}")).collect()
    }

    #[test]
    fn answers_and_refusals() {
        let query = Query::new("kubernetes.default.svc.cluster.local");
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 10, 0, 0, 1];
        assert_eq!(query.answer(&printed(&query, [0x85, 0x80], &record)), Ok(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(query.answer(&printed(&query, [0x85, 0x83], &[])), Err("there is no such name".into()));
        assert_eq!(query.answer(&printed(&query, [0x85, 0x82], &[])), Err("the server answered with code 2".into()));
        assert_eq!(query.answer(&printed(&query, [0x85, 0x80], &[])), Err("the reply has no record".into()));
        assert_eq!(query.answer(""), Err("no answer within 3 s".into()));
        assert_eq!(query.answer("bash: connect: Connection refused"), Err("bash: connect: Connection refused".into()));
    }
}
