//! The daemon's own configuration: where things are. What is allowed is the policy's business.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Where the configuration is unless said otherwise.
pub const DEFAULT_PATH: &str = "/etc/agent-guard/agent-guard.toml";

/// Name of the socket for sessions, in the directory of the control socket.
pub const SESSION_SOCKET: &str = "session.sock";

/// The configuration, complete.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Control socket.
    pub socket: PathBuf,
    /// Directory of policy files.
    pub policy: PathBuf,
    /// File that events are appended to.
    pub events: PathBuf,
    /// Directory of what must outlive the daemon, but not the host's next boot.
    pub state: PathBuf,
    /// Directory of pins, on a BPF file system.
    pub pins: PathBuf,
    /// Where all that was read.
    #[serde(skip)]
    pub file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            socket: "/run/agent-guard/control.sock".into(),
            policy: "/etc/agent-guard/policy.d".into(),
            events: "/var/log/agent-guard/events.jsonl".into(),
            state: "/run/agent-guard".into(),
            pins: "/sys/fs/bpf/agent-guard".into(),
            file: DEFAULT_PATH.into(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read the configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file isn't a configuration.
    #[error("the configuration {} is not valid: {message}", path.display())]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// Why, with line and column.
        message: String,
    },
    /// A path isn't absolute.
    #[error("the configuration {} is not valid: `{key}` must be an absolute path, not {value}", path.display())]
    Relative {
        /// Which file.
        path: PathBuf,
        /// Which key.
        key: &'static str,
        /// What it says.
        value: String,
    },
}

impl Config {
    /// Reads a configuration. Keys that it doesn't name have their defaults.
    ///
    /// # Errors
    ///
    /// If the file can't be read, isn't TOML, has unknown keys, or names a path that isn't absolute. Only the
    /// default file may be missing.
    pub fn read(path: &Path) -> Result<Self, Error> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                Ok(Self::default())
            }
            Err(source) => Err(Error::Read { path: path.into(), source }),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let mut config: Self = toml::from_str(text)
            .map_err(|error| Error::Invalid { path: path.into(), message: error.to_string() })?;
        config.file = path.into();
        let Self { socket, policy, events, state, pins, file: _ } = &config;
        let all =
            [("socket", socket), ("policy", policy), ("events", events), ("state", state), ("pins", pins)];
        for (key, value) in all {
            if !value.is_absolute() {
                return Err(Error::Relative { path: path.into(), key, value: value.display().to_string() });
            }
        }
        if config.socket.file_name().is_none_or(|name| name == SESSION_SOCKET) {
            let message = format!("`socket` can't be called {SESSION_SOCKET}, which is the one for sessions");
            return Err(Error::Invalid { path: path.into(), message });
        }
        Ok(config)
    }

    /// The socket for sessions: beside the control socket.
    #[must_use]
    pub fn session_socket(&self) -> PathBuf {
        self.socket.with_file_name(SESSION_SOCKET)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, Error> {
        Config::parse(Path::new("c.toml"), text)
    }

    #[test]
    fn defaults_and_overrides() {
        assert_eq!(parse("").unwrap(), Config { file: "c.toml".into(), ..Config::default() });
        let config = parse("socket = \"/tmp/x.sock\"").unwrap();
        assert_eq!(config.socket, Path::new("/tmp/x.sock"));
        assert_eq!(config.session_socket(), Path::new("/tmp/session.sock"));
        assert_eq!(config.policy, Config::default().policy);
    }

    #[test]
    fn mistakes_are_named() {
        assert!(parse("sokcet = \"/x\"").unwrap_err().to_string().contains("sokcet"));
        assert!(parse("socket = 3").unwrap_err().to_string().contains("line 1"));
        assert!(parse("socket = \"/x/session.sock\"").unwrap_err().to_string().contains("for sessions"));
        let relative = parse("events = \"log\"").unwrap_err().to_string();
        assert!(relative.contains("`events` must be an absolute path"), "{relative}");
        assert!(matches!(Config::read(Path::new("/nonexistent/x")), Err(Error::Read { .. })));
    }
}
