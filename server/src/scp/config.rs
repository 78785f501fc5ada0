//! Settings of the DICOM storage provider.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use dimse::WireLimits;
use dimse::scp::ScpOptions;
use pipeline::header::FallbackCharset;
use serde::{Deserialize, Serialize};

use super::address::AddressRange;

/// Shortest and longest P-DATA-TF that may be asked for, bytes.
const PDU_BYTES_RANGE: std::ops::RangeInclusive<u32> = 4 << 10..=16 << 20;
/// Matches every calling AE title in the allow-list.
const ANY_AE_TITLE: &str = "*";
/// Most associations that may be asked for: the runtime has 512 threads for all that blocks.
const ASSOCIATIONS_MAX: usize = 256;

/// Settings of the DICOM storage provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScpConfig {
    /// Address and port to listen on; port 0 for any that is free. Loopback, unless told otherwise.
    pub bind: SocketAddr,
    /// Our AE title: 1 to 16 characters.
    pub ae_title: String,
    /// Take associations whatever AE title they call.
    pub accept_any_called_ae: bool,
    /// Who may send: an association is refused unless one entry fits its calling AE title and its
    /// address. A connection from an address that no entry holds is closed before anything is read.
    /// An empty list refuses everybody.
    pub allow: Vec<AllowedPeer>,
    /// Most associations at once; more are refused until one ends.
    pub associations_max: usize,
    /// Most associations at once from one address, so that one sender cannot take every place.
    pub associations_per_address_max: usize,
    /// Longest P-DATA-TF that a peer may send, bytes, without its header.
    pub pdu_bytes_max: u32,
    /// Longest DIMSE command set, bytes.
    pub command_bytes_max: usize,
    /// Longest time from a connection to its association request, seconds (ARTIM, PS3.8 9.1.5).
    pub request_seconds_max: u64,
    /// Longest silence of a peer within an association, and longest time from the first byte of a
    /// command set to its last, seconds.
    pub idle_seconds_max: u64,
    /// Least speed of an object that is being received, bytes each second, over any
    /// `idle_seconds_max` that Tez waited for the sender; a slower one is cut off. 0: none.
    pub object_bytes_per_second_min: u64,
    /// Longest time that an object in flight is given to end when the service stops, seconds.
    pub stop_seconds_max: u64,
    /// How text is read whose character set is not declared, or is declared as Latin-1 and cannot
    /// be: `auto` finds Russian in Windows-1251, ISO 8859-5, KOI8-R, CP866 and UTF-8 by itself; or
    /// a name such as `windows-1251`. For objects of every road.
    pub fallback_charset: FallbackCharset,
}

/// A sender of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowedPeer {
    /// Its calling AE title; `*` for any.
    pub ae_title: String,
    /// Its address, or a block of them: `10.1.2.3`, `10.1.0.0/16`, `fd00::/8`.
    pub address: AddressRange,
}

impl Default for ScpConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 11112)),
            ae_title: "TEZ".to_owned(),
            accept_any_called_ae: false,
            allow: AllowedPeer::loopback(),
            associations_max: 32,
            associations_per_address_max: 16,
            pdu_bytes_max: 256 << 10,
            command_bytes_max: 16 << 10,
            request_seconds_max: 10,
            idle_seconds_max: 120,
            object_bytes_per_second_min: 256,
            stop_seconds_max: 10,
            fallback_charset: FallbackCharset::default(),
        }
    }
}

impl AllowedPeer {
    /// Every AE title on this machine, and nobody else.
    fn loopback() -> Vec<Self> {
        ["127.0.0.0/8", "::1/128"]
            .into_iter()
            .filter_map(|range| range.parse().ok())
            .map(|address| Self {
                ae_title: ANY_AE_TITLE.to_owned(),
                address,
            })
            .collect()
    }

    fn matches(&self, calling_ae_title: &str, address: IpAddr) -> bool {
        let title_fits = self.ae_title == ANY_AE_TITLE || self.ae_title == calling_ae_title;
        title_fits && self.address.contains(address)
    }
}

impl ScpConfig {
    /// Says what is wrong with the settings, in a sentence that names the setting.
    ///
    /// # Errors
    ///
    /// The sentence.
    pub fn check(&self) -> Result<(), String> {
        check_ae_title("ae_title", &self.ae_title)?;
        for peer in &self.allow {
            if peer.ae_title != ANY_AE_TITLE {
                check_ae_title("allow: ae_title", &peer.ae_title)?;
            }
        }
        if !PDU_BYTES_RANGE.contains(&self.pdu_bytes_max) {
            return Err(format!(
                "pdu_bytes_max is {}; {} to {} is possible",
                self.pdu_bytes_max,
                PDU_BYTES_RANGE.start(),
                PDU_BYTES_RANGE.end()
            ));
        }
        if !(1..=ASSOCIATIONS_MAX).contains(&self.associations_max) {
            return Err(format!(
                "associations_max is {}; 1 to {ASSOCIATIONS_MAX} is possible: each has a thread",
                self.associations_max
            ));
        }
        let numbers = [
            (
                "associations_per_address_max",
                self.associations_per_address_max == 0,
            ),
            ("command_bytes_max", self.command_bytes_max < 1024),
            ("request_seconds_max", self.request_seconds_max == 0),
            ("idle_seconds_max", self.idle_seconds_max == 0),
        ];
        match numbers.into_iter().find(|(_, too_small)| *too_small) {
            Some((name, _)) => Err(format!("{name} is too small to receive anything")),
            None => Ok(()),
        }
    }

    /// Whether any entry of the allow-list holds `address`.
    pub(super) fn allows_address(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|peer| peer.address.contains(address))
    }

    pub(super) fn allows(&self, calling_ae_title: &str, address: IpAddr) -> bool {
        self.allow
            .iter()
            .any(|peer| peer.matches(calling_ae_title, address))
    }

    /// The same for the provider, which knows no settings.
    pub(super) fn options(&self) -> ScpOptions {
        let called_ae_title = (!self.accept_any_called_ae).then(|| self.ae_title.clone());
        ScpOptions {
            called_ae_title,
            associations_max: self.associations_max,
            associations_per_address_max: self.associations_per_address_max,
            wire: WireLimits {
                pdu_bytes_max: self.pdu_bytes_max,
                command_bytes_max: self.command_bytes_max,
                establish_time_max: Duration::from_secs(self.request_seconds_max),
                idle_time_max: Duration::from_secs(self.idle_seconds_max),
                data_set_bytes_per_second_min: self.object_bytes_per_second_min,
                stop_time_max: Duration::from_secs(self.stop_seconds_max),
            },
        }
    }
}

/// PS3.5 section 6.2, AE: at most 16 characters of the default repertoire, no backslash.
///
/// # Errors
///
/// What is wrong with it, in a sentence that begins with `setting`.
pub(crate) fn check_ae_title(setting: &str, text: &str) -> Result<(), String> {
    let printable = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'\\';
    let length = text.chars().count();
    let wrong = if text.trim().is_empty() {
        "it is empty".to_owned()
    } else if length > 16 {
        format!("it has {length} characters")
    } else if !text.bytes().all(printable) {
        "it holds a character that DICOM does not allow there".to_owned()
    } else {
        return Ok(());
    };
    Err(format!(
        "{setting} is {text:?}: {wrong}. An AE title has 1 to 16 Latin letters, digits and signs, \
         and no backslash"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_right_and_allow_loopback_only() {
        let config = ScpConfig::default();
        assert_eq!(config.check(), Ok(()));
        assert!(config.bind.ip().is_loopback());
        assert!(config.allows("ANY", "127.0.0.1".parse().unwrap()));
        assert!(config.allows("ANY", "::1".parse().unwrap()));
        assert!(!config.allows("ANY", "192.168.0.1".parse().unwrap()));
    }

    #[test]
    fn title_and_address_must_fit_the_same_entry() {
        let entry = |ae_title: &str, address: &str| AllowedPeer {
            ae_title: ae_title.to_owned(),
            address: address.parse().unwrap(),
        };
        let config = ScpConfig {
            allow: vec![entry("CT1", "10.0.0.1"), entry("CT2", "10.0.0.2")],
            ..ScpConfig::default()
        };
        assert!(config.allows("CT1", "10.0.0.1".parse().unwrap()));
        assert!(!config.allows("CT1", "10.0.0.2".parse().unwrap()));
    }

    #[test]
    fn a_caller_without_a_title_is_taken_where_any_title_is() {
        let mut config = ScpConfig::default();
        let loopback = "127.0.0.1".parse().unwrap();
        assert!(config.allows("", loopback));
        config.allow[0].ae_title = "CT1".to_owned();
        assert!(!config.allows("", loopback));
        assert!(config.allows("CT1", loopback));
    }

    #[test]
    fn only_a_provider_that_takes_any_called_title_asks_for_none() {
        let mut config = ScpConfig::default();
        assert_eq!(config.options().called_ae_title.as_deref(), Some("TEZ"));
        config.accept_any_called_ae = true;
        assert_eq!(config.options().called_ae_title, None);
    }

    #[test]
    fn impossible_settings_are_named() {
        let titles = ["", "   ", "SEVENTEEN_LETTERS", "A\\B", "ТЕЗ"];
        for ae_title in titles.map(str::to_owned) {
            let config = ScpConfig {
                ae_title,
                ..ScpConfig::default()
            };
            assert!(config.check().unwrap_err().contains("ae_title"));
        }
        let config = ScpConfig {
            associations_max: 0,
            ..ScpConfig::default()
        };
        assert!(config.check().unwrap_err().contains("associations_max"));
        let mut config = ScpConfig::default();
        config.allow[0].ae_title = "SEVENTEEN_LETTERS".to_owned();
        let error = config.check().unwrap_err();
        assert!(
            error.contains("allow") && error.contains("17 characters"),
            "{error}"
        );
    }
}
