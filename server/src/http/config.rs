//! Settings of the HTTP side: every limit with its unit, all with defaults.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use fairness::pace::Pace;

/// Section `[http]` of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port to listen on. Loopback unless told otherwise: there is no login yet.
    pub bind: SocketAddr,
    /// Names by which this service is reached, such as `tez.hospital.example`. IP addresses and
    /// `localhost` always pass; other names are refused, so that a web page cannot reach Tez by
    /// pointing a name of its own at it (DNS rebinding). `*` lets every name pass.
    pub hosts_allowed: Vec<String>,
    /// Origins of other sites whose pages may send objects, such as `https://portal.example`.
    pub origins_allowed: Vec<String>,
    /// Largest body of one upload, bytes.
    pub upload_bytes_max: u64,
    /// Most files of one upload, those inside zips counted.
    pub upload_files_max: usize,
    /// Largest body of one STOW-RS request, bytes.
    pub stow_bytes_max: u64,
    /// Most uploads and STOW-RS requests that are received at the same time.
    pub uploads_at_once_max: usize,
    /// Most of them from one address, so that one sender cannot take every place.
    pub uploads_per_address_max: usize,
    /// Longest silence of a sender, seconds. The whole time of an upload has no limit: a weak line
    /// may need an hour.
    pub idle_seconds_max: u64,
    /// Least speed of an upload, bytes each second, over any `idle_seconds_max` that Tez waited for
    /// the sender; a slower one is cut off. 0: none.
    pub upload_bytes_per_second_min: u64,
    /// Longest time for any other answer, seconds.
    pub answer_seconds_max: u64,
    /// Most connections at the same time; further ones are told so. A process may usually have
    /// 1024 files and sockets open.
    pub connections_max: usize,
    /// Most connections from one address, so that one client cannot take every place. Behind a
    /// reverse proxy all come from one address: set it as high as `connections_max` then.
    pub connections_per_address_max: usize,
    /// Longest wait for a request's header, seconds: from the start of the connection, or from the
    /// answer before. A connection that is idle for so long is closed.
    pub header_seconds_max: u64,
    /// Most listeners of the event stream at the same time.
    pub listeners_max: usize,
    /// Seconds between signs of life on the event stream.
    pub keep_alive_seconds: u64,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            hosts_allowed: Vec::new(),
            origins_allowed: Vec::new(),
            upload_bytes_max: 8 << 30,
            upload_files_max: 10_000,
            stow_bytes_max: 8 << 30,
            uploads_at_once_max: 16,
            uploads_per_address_max: 8,
            idle_seconds_max: 60,
            upload_bytes_per_second_min: 256,
            answer_seconds_max: 30,
            connections_max: 512,
            connections_per_address_max: 128,
            header_seconds_max: 30,
            listeners_max: 256,
            keep_alive_seconds: 10,
        }
    }
}

impl HttpConfig {
    /// Says what is wrong with the settings, in a sentence that names the setting.
    ///
    /// # Errors
    ///
    /// The sentence.
    pub fn check(&self) -> Result<(), String> {
        self.hosts_allowed
            .iter()
            .try_for_each(|host| check_host(host))?;
        self.origins_allowed
            .iter()
            .try_for_each(|origin| check_origin(origin))?;
        let numbers = [
            ("uploads_at_once_max", self.uploads_at_once_max == 0),
            ("uploads_per_address_max", self.uploads_per_address_max == 0),
            ("idle_seconds_max", self.idle_seconds_max == 0),
            ("answer_seconds_max", self.answer_seconds_max == 0),
            ("connections_max", self.connections_max == 0),
            (
                "connections_per_address_max",
                self.connections_per_address_max == 0,
            ),
            ("header_seconds_max", self.header_seconds_max == 0),
        ];
        match numbers.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(format!("{name} is 0, so that nothing could be answered")),
            None => Ok(()),
        }
    }

    /// The pace that is asked of an upload.
    pub fn pace(&self) -> Pace {
        Pace::new(self.upload_bytes_per_second_min, self.idle_max())
    }

    /// [`HttpConfig::header_seconds_max`].
    pub fn header_max(&self) -> Duration {
        Duration::from_secs(self.header_seconds_max)
    }

    /// [`HttpConfig::idle_seconds_max`].
    pub fn idle_max(&self) -> Duration {
        Duration::from_secs(self.idle_seconds_max)
    }

    /// [`HttpConfig::answer_seconds_max`].
    pub fn answer_max(&self) -> Duration {
        Duration::from_secs(self.answer_seconds_max)
    }
}

/// A name as it stands in a request's `Host`, without its port.
fn check_host(text: &str) -> Result<(), String> {
    let legal = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    let is_address = text.parse::<IpAddr>().is_ok();
    if text == "*" || is_address || (!text.is_empty() && text.chars().all(legal)) {
        return Ok(());
    }
    let bare = text.rsplit("://").next().unwrap_or_default();
    let name = bare.split(['/', ':', '?', '#']).next().unwrap_or_default();
    let name = if name.is_empty() || !name.chars().all(legal) {
        "tez.hospital.example"
    } else {
        name
    };
    Err(format!(
        "hosts_allowed holds {text:?}, which fits no request: write the name alone: {name:?}"
    ))
}

/// An origin as a browser sends it: scheme, name and port, nothing else (RFC 6454 section 6.2).
fn check_origin(text: &str) -> Result<(), String> {
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    let fits = |rest: &str| !rest.is_empty() && !rest.contains(['/', '?', '#', '@', ' ', '*']);
    if rest.is_some_and(fits) {
        return Ok(());
    }
    let bare = text.rsplit("://").next().unwrap_or_default();
    let name = bare.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = if text.starts_with("http://") {
        "http"
    } else {
        "https"
    };
    Err(format!(
        "origins_allowed holds {text:?}, which no browser sends: write scheme and name alone: \
         \"{scheme}://{name}\""
    ))
}
