//! Rights: bearer tokens, what each allows, and the refusal of requests without one.
//!
//! A process that stores what others may not change or read asks [`AccessControl`]: the registry and the log service do.
//! With neither a token of its own nor a tokens file, everybody may do everything.
//!
//! With mutual TLS, a certificate is as good as a token: its names are those of services, or of roles
//! ([`CertificateNames`]). A token in the request counts instead, if the process knows tokens.
//!
//! A tokens file has one token a line, as `NAME ROLE [SERVICE…] [host=HOST…] [expires=TIME] sha256:HASH` ([`TokenEntry`]). `hub token`
//! writes it. Tokens are 192 random bits, so an unsalted, fast hash is enough: nobody finds one by trying, and the
//! file is of no use to whoever reads it.

pub use self::control::AccessControl;
pub use self::denied::Denied;
pub use self::role::{Right, Role};
pub use self::subject::{CertificateNames, OPERATOR_NAME, READER_NAME, Subject};
pub use self::token_set::{InvalidTokens, TokenEntry, TokenSet, hash_of, random_token};

mod control;
mod denied;
mod refusals;
mod role;
mod subject;
mod token_set;
mod tokens_file;
