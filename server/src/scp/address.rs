//! Ranges of network addresses, for the allow-list.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One address such as `10.1.2.3`, or a block of them such as `10.1.0.0/16` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    prefix_bits: u32,
}

/// Why a text is not an [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address such as 10.1.2.3, nor a block of them such as 10.1.0.0/16")]
pub struct AddressError(String);

impl AddressRange {
    /// Whether it holds this machine's own addresses only.
    pub fn is_loopback(self) -> bool {
        let own_bits = match self.first {
            IpAddr::V4(_) => 8,
            IpAddr::V6(_) => 128,
        };
        self.first.is_loopback() && self.prefix_bits >= own_bits
    }

    /// Whether `address` lies in the range. An IPv4 address written as IPv6 (`::ffff:10.1.2.3`)
    /// counts as IPv4.
    pub fn contains(self, address: IpAddr) -> bool {
        let (first, first_width) = bits(self.first);
        let (other, other_width) = bits(address.to_canonical());
        let free_bits = first_width - self.prefix_bits;
        first_width == other_width
            && first.checked_shr(free_bits).unwrap_or(0)
                == other.checked_shr(free_bits).unwrap_or(0)
    }
}

/// An address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

impl FromStr for AddressRange {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let error = || AddressError(text.chars().take(80).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let first: IpAddr = address.trim().parse().map_err(|_| error())?;
        let (_, width) = bits(first);
        let prefix_bits = match prefix {
            Some(prefix) => prefix.trim().parse().map_err(|_| error())?,
            None => width,
        };
        if prefix_bits > width {
            return Err(error());
        }
        Ok(Self { first, prefix_bits })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.first, self.prefix_bits)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        let range: AddressRange = range.parse().unwrap();
        range.contains(address.parse().unwrap())
    }

    #[test]
    fn a_block_holds_the_addresses_that_share_its_prefix() {
        assert!(contains("127.0.0.0/8", "127.255.0.1"));
        assert!(!contains("127.0.0.0/8", "128.0.0.1"));
        assert!(contains("10.1.2.3", "10.1.2.3"));
        assert!(!contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(contains("10.1.2.3", "::ffff:10.1.2.3"));
    }

    #[test]
    fn a_block_of_everything_is_of_one_family() {
        assert!(contains("0.0.0.0/0", "8.8.8.8"));
        assert!(contains("::/0", "fd00::1"));
        assert!(!contains("0.0.0.0/0", "fd00::1"));
        assert!(!contains("::/0", "8.8.8.8"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in [
            "",
            "10.1.2",
            "10.1.2.3/33",
            "::1/129",
            "pacs.local",
            "10.1.2.3/x",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_range_is_written_as_it_is_read() {
        let range: AddressRange = "10.1.0.0/16".parse().unwrap();
        assert_eq!(range.to_string(), "10.1.0.0/16");
    }
}
