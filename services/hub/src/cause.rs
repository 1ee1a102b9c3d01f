//! Why a request got no answer, in words. Pure.

use std::error::Error;
use std::fmt;
use std::io;

use hubspoke_client::SendError;

/// The reason why a server did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Nothing listens at the address, or no route leads there.
    Connect(String),
    /// The host's name has no address.
    Name(String),
    /// It was silent for too long: while connecting, or after the request.
    Timeout {
        /// Whether there was a connection.
        connected: bool,
    },
    /// It closed the connection instead of answering.
    Closed,
    /// Its answer is not HTTP.
    NotHttp,
    /// Anything else.
    Other(String),
}

impl Cause {
    pub(crate) fn of(error: &reqwest::Error) -> Self {
        Self::of_chain(error, error.is_timeout(), error.is_connect())
    }

    /// That of a request inside the platform.
    pub(crate) fn of_send(error: &SendError) -> Self {
        Self::of_chain(error, error.is_timeout(), error.is_connect())
    }

    fn of_chain(error: &(dyn Error + 'static), is_timeout: bool, is_connect: bool) -> Self {
        if is_timeout {
            return Self::Timeout { connected: !is_connect };
        }
        let chain: Vec<&(dyn Error + 'static)> =
            std::iter::successors(error.source(), |&error| error.source()).collect();
        let is_name = chain.iter().any(|error| error.to_string() == "dns error");
        let root = chain.last().map_or_else(|| error.to_string(), ToString::to_string);
        if is_name {
            return Self::Name(root.rsplit(": ").next().unwrap_or_default().to_owned());
        }
        for error in &chain {
            if let Some(error) = error.downcast_ref::<hyper::Error>() {
                if error.is_parse() {
                    return Self::NotHttp;
                }
                if error.is_incomplete_message() || error.is_canceled() {
                    return Self::Closed;
                }
            }
        }
        match chain
            .iter()
            .find_map(|error| error.downcast_ref::<io::Error>())
            .map(|error| (error.kind(), error))
        {
            Some((io::ErrorKind::ConnectionRefused, _)) => Self::Connect("connection refused".to_owned()),
            Some((io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _)) => Self::Closed,
            Some((_, io)) if is_connect => Self::Connect(without_number(&io.to_string())),
            _ => Self::Other(without_number(&root)),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(why) | Self::Other(why) => f.write_str(why),
            Self::Name(why) => write!(f, "the host name can't be resolved: {why}"),
            Self::Timeout { connected: false } => f.write_str("connecting timed out"),
            Self::Timeout { connected: true } => {
                f.write_str("it accepts connections but does not answer in time")
            }
            Self::Closed => f.write_str("it closed the connection without an answer"),
            Self::NotHttp => f.write_str("it does not speak plain HTTP; perhaps that is a TLS port"),
        }
    }
}

/// The text of a system's error without ` (os error 101)`.
fn without_number(text: &str) -> String {
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}
